import sqlite3, sys

# Autocommit, as in C: the module must begin no transactions of its own.
connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=0)
for line in sys.stdin:
    try:
        for row in connection.execute(line).fetchall():
            print("row", *row, sep="\t")
        print("ok", flush=True)
    except sqlite3.Error as error:
        print("error", error, sep="\t", flush=True)
connection.close()
