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


class File:
    """A file as its name and its ends have it."""

    def __init__(self, folder, match):
        self.name, self.low, self.high = match[0], int(match[1], 16), int(match[2], 16)
        self.path, self.read_ends = os.path.join(folder, self.name), None

    def ends(self):
        """The states that it leads between, and its timestamp; nothing if they cannot be read."""
        if self.read_ends is None:
            with open(self.path, "rb") as file:
                data = file.read()
            self.read_ends = ()
            if len(data) >= 131 and data[:4] == b"LTX1":
                low, high, time, before = struct.unpack_from(">QQqQ", data, 16)
                (after,) = struct.unpack_from(">Q", data, len(data) - 16)
                if (low, high) == (self.low, self.high) and after & FLAG:
                    self.read_ends = ((low - 1, before), (high, after), time)
        return self.read_ends


def groups(files):
    """Incrementals that have TXIDs in common, the newest first."""
    found, end = [], 0
    for file in sorted((file for file in files if file.low > 1), key=lambda it: (it.low, it.high)):
        if file.low <= end:
            found[-1].append(file)
        else:
            found.append([file])
        end = max(end, file.high)
    return [group for group in reversed(found) if len(group) > 1]


def without_branches(files, retired):
    """The files that are of the branch that goes on."""
    files = [file for file in files if file.name not in retired]
    for group in groups(files):
        if not all(file.ends() for file in group):
            continue
        first, last = group[0].low, max(file.high for file in group)
        reached = {
            file.ends()[1]
            for file in files
            if (first - 1 <= file.high < last if file.low == 1 else file.high == first - 1)
            and file.ends()
        }
        for file in group:
            if file.ends()[0] in reached:
                reached.add(file.ends()[1])
        within = {file.ends()[0] for file in group}
        behind = {file.ends()[0] for file in files if file.low == last + 1 and file.ends()}
        ends = [file.ends()[1:] for file in group if file.ends()[1] not in within]
        if not ends:
            continue
        end, _ = max(ends, key=lambda it: (it[0] in reached, it[0] in behind, it[1], it[0][0]))
        wanted = {end}
        for file in sorted(group, key=lambda it: it.high, reverse=True):
            if file.ends()[1] in wanted:
                wanted.add(file.ends()[0])
            else:
                files.remove(file)
    bounds = {txid for file in files if file.low > 1 for txid in (file.low - 1, file.high)}
    heads = [file for file in files if file.low == 1 and file.high not in bounds]
    heads += sorted((file for file in files if file.low > 1), key=lambda it: it.high)[-1:]
    heads = [file.ends() for file in heads if file.ends()] if len(heads) > 1 else []
    newest = max(heads, key=lambda it: (it[2], it[1][0]))[1][0] if heads else float("inf")
    return [file for file in files if file.high <= newest or not file.ends()]


def plan(files, target):
    """The names of the files that lead to a TXID."""
    files = [(file.low, file.high, file.name) for file in files]
    target = target or max((high for _, high, _ in files), default=0)
    for _, end, base in sorted((f for f in files if f[0] == 1 and f[1] <= target), reverse=True):
        paths, seen = [(end, [base])], {end}
        for end, path in paths:
            if end == target:
                return target, path
            for low, high, name in files:
                if low == end + 1 and high <= target and low > 1 and high not in seen:
                    seen.add(high)
                    paths.append((high, path + [name]))
    raise Damaged(f"no files lead to TXID {target}")


def restore(folder, output, target=None):
    names = [match for match in map(NAME.fullmatch, os.listdir(folder)) if match]
    files = [File(folder, match) for match in names]
    recorded, retired = {}, set()
    index = os.path.join(folder, "manifest.json")
    if os.path.exists(index):
        with open(index, encoding="utf-8") as file:
            manifest = json.load(file)
        check(manifest["format"] <= 1, "the manifest has a higher format")
        recorded = {f"{it['min']}-{it['max']}.ltx": it["sha256"] for it in manifest["files"]}
        retired = {f"{it['min']}-{it['max']}.ltx" for it in manifest.get("retired", [])}
    newest, path = plan(without_branches(files, retired), target)
    stored = {file.name for file in files}
    for name in set(recorded) - stored:
        check(target or int(name[17:33], 16) <= newest, "the newest states are lost")
    for suffix in ["", "-wal", "-shm", "-journal"]:
        check(not os.path.lexists(output + suffix), f"{output + suffix} is in the way")
    image = Image(output + ".partial")
    try:
        for name in path:
            with open(os.path.join(folder, name), "rb") as file:
                data = file.read()
            sha256 = hashlib.sha256(data).hexdigest()
            check(recorded.get(name, sha256) in ("", sha256), f"{name}: SHA-256 is wrong")
            low, high = NAME.fullmatch(name).groups()
            try:
                image.apply(data, int(low, 16), int(high, 16))
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
