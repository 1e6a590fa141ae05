"""Restores a database from a directory that walrust replicates to.

    restorer.py DIRECTORY NAME OUTPUT [TXID]

Written from docs/format.md alone, with nothing but Python: the page says all that is needed.
"""

import hashlib
import json
import os
import re
import struct
import sys

NAME = re.compile(r"([0-9a-f]{16})-([0-9a-f]{16})\.ltx")
FLAG = 1 << 63


class Damaged(Exception):
    """The files do not give the database that they should."""


def crc_table():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (0xD800000000000000 if byte & 1 else 0)
        table.append(byte)
    return table


TABLE = crc_table()


def crc(data, state=FLAG * 2 - 1):
    for byte in data:
        state = TABLE[(state ^ byte) & 0xFF] ^ (state >> 8)
    return state


def checksum(state):
    return (state ^ (FLAG * 2 - 1)) | FLAG


def check(condition, what):
    if not condition:
        raise Damaged(what)


def lz4_block(block, size):
    """Decodes an LZ4 block that holds `size` bytes."""
    out, at = bytearray(), 0

    def length(start):
        nonlocal at
        total = start
        while start == 15:
            total, at = total + block[at], at + 1
            if block[at - 1] != 255:
                break
        return total

    while True:
        token, at = block[at], at + 1
        literals = length(token >> 4)
        out += block[at : at + literals]
        at += literals
        if at >= len(block):
            break
        offset, at = block[at] | block[at + 1] << 8, at + 2
        check(0 < offset <= len(out), "an LZ4 block copies from before its start")
        copied = length(token & 15) + 4
        check(len(out) + copied <= size, "an LZ4 block holds more than a page")
        for _ in range(copied):
            out.append(out[-offset])
    check(at == len(block) and len(out) == size, "an LZ4 block does not hold one page")
    return bytes(out)


class Image:
    """The database that the files add up to."""

    def __init__(self, path):
        self.file = open(path, "w+b")
        self.pages = {}
        self.rolling, self.page_size, self.txid = FLAG, None, 0

    def set(self, number, page):
        self.file.seek((number - 1) * self.page_size)
        self.file.write(page)
        self.forget(number)
        self.pages[number] = checksum(crc(page, crc(struct.pack(">I", number))))
        self.rolling = (self.rolling ^ self.pages[number]) | FLAG

    def forget(self, number):
        self.rolling = (self.rolling ^ self.pages.pop(number, 0)) | FLAG

    def apply(self, data, minimum, maximum):
        check(len(data) >= 131, "the file is too short")
        magic, flags, page_size, commit, low, high = struct.unpack_from(">4sIIIQQ", data)
        (before,) = struct.unpack_from(">Q", data, 40)
        check((magic, flags) == (b"LTX1", 0), "not an LTX file of walrust")
        check((low, high) == (minimum, maximum), "the name has other TXIDs than the header")
        if minimum > 1:
            check((minimum, page_size) == (self.txid + 1, self.page_size), "does not continue")
            check(before == self.rolling, "pre-apply is not the state before")
        self.page_size, self.txid = page_size, maximum
        lock_page = 0x40000000 // page_size + 1
        state, at, last = crc(data[:100]), 100, 0
        for number in [number for number in self.pages if number > commit]:
            self.forget(number)
        while data[at : at + 6] != bytes(6):
            number, page_flags, size = struct.unpack_from(">IHI", data, at)
            check(page_flags == 1 and last < number <= commit, "a page frame is wrong")
            check(number != lock_page and at + 10 + size < len(data), "a page frame is wrong")
            page = lz4_block(data[at + 10 : at + 10 + size], page_size)
            state = crc(page, crc(data[at : at + 10], state))
            self.set(number, page)
            at, last = at + 10 + size, number
        after, expected = struct.unpack(">QQ", data[-16:])
        check(checksum(crc(data[at:-8], state)) == expected, "the file checksum is wrong")
        missing = commit - len(self.pages) - (lock_page <= commit)
        check(missing == 0, f"{missing} pages are missing")
        check(after == self.rolling, "post-apply is not the state after")
        self.file.truncate(commit * page_size)


def ends(folder, match):
    """The states between which a file leads, its timestamp, and its name."""
    with open(os.path.join(folder, match[0]), "rb") as file:
        data = file.read().ljust(131, b"\0")
    low, high, time, before = struct.unpack_from(">QQqQ", data, 16)
    return (low - 1, before), (high, *struct.unpack_from(">Q", data[-16:])), time, match[0]


def plan(files, target):
    """The TXID of a state, and the names of the files that lead to it."""
    reached = {}
    for before, after, time, _ in sorted(files, key=lambda it: it[1]):
        if before[0] == 0 or before in reached:
            reached[after] = time
    continued = {before for before, _, _, _ in files}
    wanted = [it for it in reached if (it[0] == target if target else it not in continued)]
    goal = max(wanted, key=lambda it: (reached[it], it[0]), default=(target or 0, 0))
    lost = [name for _, after, _, name in files if after[0] > goal[0] and after not in reached]
    check(target or not lost, f"the history has a gap before {lost}")
    for before, after, _, name in sorted(files, key=lambda it: it[1], reverse=True):
        paths, seen = [(after, [name])] if before[0] == 0 else [], {after}
        for state, path in paths:
            if state == goal:
                return goal[0], path
            for before, after, _, name in files:
                if before == state and after not in seen:
                    seen.add(after)
                    paths.append((after, path + [name]))
    raise Damaged(f"no files lead to TXID {goal[0]}")


def restore(folder, output, target=None):
    names = [match for match in map(NAME.fullmatch, os.listdir(folder)) if match]
    newest, path = plan([ends(folder, match) for match in names], target)
    recorded, stored = {}, {match[0] for match in names}
    try:
        with open(os.path.join(folder, "manifest.json"), encoding="utf-8") as file:
            manifest = json.load(file)
    except (FileNotFoundError, ValueError):
        manifest = {"format": 1, "files": []}
    check(manifest["format"] <= 1, "the manifest has a higher format")
    for entry in manifest["files"]:
        name = f"{entry['min']}-{entry['max']}.ltx"
        recorded[name] = entry["sha256"]
        check(target or name in stored or int(entry["max"], 16) <= newest, "a state is lost")
    for suffix in ["", "-wal", "-shm", "-journal"]:
        check(not os.path.lexists(output + suffix), f"{output + suffix} is in the way")
    image = Image(output + ".partial")
    try:
        for name in path:
            with open(os.path.join(folder, name), "rb") as file:
                data = file.read()
            sha256 = ("", hashlib.sha256(data).hexdigest())
            check(recorded.get(name, "") in sha256, f"{name}: SHA-256 is wrong")
            try:
                image.apply(data, *(int(txid, 16) for txid in NAME.fullmatch(name).groups()))
            except (Damaged, IndexError, struct.error) as error:
                raise Damaged(f"{name}: {error}") from error
        image.file.flush()
        os.fsync(image.file.fileno())
        os.rename(image.file.name, output)
    finally:
        if os.path.exists(image.file.name):
            os.remove(image.file.name)


if __name__ == "__main__":
    directory, database, destination, *txid = sys.argv[1:]
    try:
        restore(os.path.join(directory, database), destination, *map(int, txid))
    except Damaged as error:
        sys.exit(f"error: {error}")
