#!/usr/bin/env python3
"""Writes the seeds that are no text, field by field: python3 fuzz/seeds/make.py"""
import os
import struct

HERE = os.path.dirname(os.path.abspath(__file__))


def write(name, content):
    path = os.path.join(HERE, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)


def at(length, *fields):
    """Zeros, with packed values at their places."""
    block = bytearray(length)
    for place, form, value in fields:
        struct.pack_into(form, block, place, value)
    return bytes(block)


# The superblock of Docker's usual pool (drivers/md/dm-thin-metadata.c, struct thin_disk_superblock), cut after its last
# field; the check fills it up and puts the checksum.
write("superblock/docker", at(344, (32, "<Q", 27022010), (40, "<I", 2), (48, "<Q", 133), (64, "<Q", 1638400),
                              (72, "<Q", 1083), (192, "<Q", 524288), (200, "<Q", 150), (336, "<I", 128), (340, "<I", 8)))
write("superblock/needs-check", at(344, (4, "<I", 1), (32, "<Q", 27022010), (40, "<I", 2), (56, "<Q", 9),
                                   (336, "<I", 128), (340, "<I", 8)))

# The beginnings of file systems: an XFS of 100 blocks of 4096 bytes, an ext4 of 100 of 1024.
write("file_system_head/xfs", at(4096, (0, "4s", b"XFSB"), (4, ">I", 4096), (8, ">Q", 100)))
write("file_system_head/ext4", at(4096, (1028, "<I", 100), (1048, "<I", 0), (1080, "<H", 0xef53)))

# A label (docs/label-format.md) of a pool on one device, and of one whose data is striped over two others; the check puts
# the checksum.


def label(*segments):
    head = at(256, (0, "16s", b"dmpool-label\n"), (20, "<I", 1), (24, "<Q", 7), (32, "16s", bytes(14) + b"\xfe\xed"),
              (48, "16s", bytes(15) + b"\1"), (65, "B", 2), (66, "<H", len(segments)), (68, "<I", 128), (72, "<Q", 1024),
              (80, "<I", 9), (128, "2s", b"p0"))
    roles = {purpose == 3 for purpose, _, _, legs in segments if 1 in [device for device, _ in legs]}
    head = head[:64] + bytes([{(False,): 1, (True,): 2, (False, True): 3}[tuple(sorted(roles))]]) + head[65:]
    return head + b"".join(
        struct.pack("<BBHIQ", purpose, len(legs), 0, chunk, length)
        + b"".join(device.to_bytes(16, "big") + struct.pack("<Q", start) for device, start in legs)
        for purpose, chunk, length, legs in segments)


write("label/one-device", label((1, 0, 32768, [(1, 2048)]), (2, 0, 98304, [(1, 34816)]), (3, 0, 2048000, [(1, 133120)])))
write("label/striped", label((1, 0, 32768, [(1, 2048)]), (3, 128, 614400, [(2, 2048), (3, 2048)])))

# The tree of volumes: a branch and two leaves, 128 bytes of each (drivers/md/persistent-data/dm-btree-internal.h, struct
# btree_node); the check fills them up and puts block numbers and checksums.
def node(flags, value_size, *items):
    fields = [(4, "<I", flags), (16, "<I", len(items)), (20, "<I", 3), (24, "<I", value_size)]
    for index, (key, value) in enumerate(items):
        fields.append((32 + 8 * index, "<Q", key))
        fields += [(56 + value_size * index + 8 * word, "<Q", part) for word, part in enumerate(value)]
    return at(128, *fields)


write("volume_tree/two-levels", node(1, 8, (0, [1]), (4, [2])) + node(2, 24, (1, [10, 7, 0]), (3, [0, 8, 0]))
      + node(2, 24, (4, [40, 9, 0])))
# Mappings: 24 bits of time below the data block.
write("mapping_tree/two-levels", node(1, 8, (0, [1]), (4, [2])) + node(2, 8, (0, [5 << 24]), (1, [6 << 24 | 1]), (3, [2 << 24]))
      + node(2, 8, (4, [3 << 24]), (9, [999 << 24])))
write("mapping_tree/roots", node(2, 8, (0, [0]), (7, [0])))

# XFS and ext4 of 10 GiB, as far as the sizes stand in their superblocks.
write("file_system/xfs", at(16, (0, "4s", b"XFSB"), (4, ">I", 4096), (8, ">Q", 2621440)))
write("file_system/ext4", at(1024 + 0x154, (1024 + 4, "<I", 2621440), (1024 + 0x18, "<I", 2), (1024 + 0x38, "<H", 0xEF53),
                             (1024 + 0x60, "<I", 0x80)))



# The label of a pool's device (docs/label-format.md), cut after its last field; the check fills it up and puts the checksum.
def label(role, *segments):
    count = len(segments)
    head = at(256, (0, "13s", b"dmpool-label\n"), (20, "<I", 1), (24, "<Q", 7), (46, ">H", 0xFEED), (62, ">H", 1), (64, "B", role),
              (65, "B", 2), (66, "<H", count), (68, "<I", 128), (72, "<Q", 1024), (80, "<I", 9), (128, "2s", b"p0"))
    return head + b"".join(segments)


def segment(purpose, chunk, length, *legs):
    head = struct.pack("<BBHIQ", purpose, len(legs), 0, chunk, length)
    return head + b"".join(struct.pack(">QQ", 0, device) + struct.pack("<Q", start) for device, start in legs)


write("label/one-device", label(3, segment(1, 0, 32768, (1, 2048)), segment(2, 0, 98304, (1, 34816)),
                                segment(3, 0, 2048000, (1, 133120))))
write("label/striped", label(1, segment(1, 0, 32768, (1, 2048)), segment(3, 128, 614400, (2, 2048), (3, 2048), (4, 2048)),
                             segment(3, 0, 1024000, (5, 2048))))

# struct dm_ioctl (linux/dm-ioctl.h) of a pool that is active.
write("dm_answer/pool", at(312, (0, "<I", 4), (4, "<I", 48), (12, "<I", 312), (16, "<I", 312), (20, "<I", 1), (24, "<I", 3),
                           (28, "<I", 0x20), (32, "<I", 7), (40, "<Q", 0xFD02), (48, "14s", b"docker-8:1-1-pool"[:14]),
                           (176, "11s", b"DMPOOL-pool")))


def leaf(number, items):
    """A leaf page of bbolt: keys and values, each with its flag."""
    head, data, start = b"", b"", 16 + 16 * len(items)
    for index, (key, flag, value) in enumerate(items):
        head += struct.pack("<IIII", flag, start + len(data) - 16 - 16 * index, len(key), len(value))
        data += key + value
    return struct.pack("<QHHI", number, 2, len(items), 0) + head + data


def pages(*all_pages):
    """Pages for the check: 256 bytes each, from number 2 on."""
    return b"".join(page.ljust(256, b"\0") for page in all_pages)


DEVICE = b'{"name":"p-snap-1","parent_name":"","device_id":1,"state":4,"error":"","size":10737418240}'
write("containerd_database/one-device", pages(
    leaf(2, [(b"devices", 1, struct.pack("<QQ", 3, 0))]),
    struct.pack("<QHHI", 3, 1, 1, 0) + struct.pack("<IIQ", 16, 3, 4) + b"p-s",
    leaf(4, [(b"p-snap-1", 0, DEVICE)])))
write("containerd_database/inline", pages(
    leaf(2, [(b"devices", 1, bytes(16) + leaf(0, [(b"d", 0, b'{"name":"d"}')]))])))
VOLUME = b'{"Name":"far","Driver":"local","Labels":{"a":"b"},"Options":{"device":":/x","o":"addr=10.0.0.1","type":"nfs"}}'
write("docker_database/volumes", pages(
    leaf(2, [(b"volumes", 1, struct.pack("<QQ", 3, 0))]),
    leaf(3, [(b"far", 0, VOLUME), (b"x", 0, b'{"Name":"x","Driver":"rexray"}')])))

NETWORK = b'{"id":"a","name":"n","ipamV4Config":"[{\\"SubPool\\":\\"10.0.0.0/8\\"}]","labels":{"a":"b"}}'
write("docker_database/network", pages(
    leaf(2, [(b"libnetwork", 1, struct.pack("<QQ", 3, 0))]),
    leaf(3, [(b"docker/network/v1.0/network/a/", 0, bytes(8) + NETWORK)])))

# What the local log driver writes (daemon/logger/local), behind a letter that says so.


def message(source, nanoseconds, line, rest=b""):
    number = b""
    while nanoseconds > 127:
        number, nanoseconds = number + bytes([nanoseconds & 127 | 128]), nanoseconds >> 7
    number += bytes([nanoseconds])
    body = b"\x0a" + bytes([len(source)]) + source + b"\x10" + number + b"\x1a" + bytes([len(line)]) + line + rest
    return struct.pack(">I", len(body)) + body + struct.pack(">I", len(body))


write("docker_stdout/local", b"l" + message(b"stdout", 1614927600000000001, b"one") + message(b"stderr", 0, b"half", b"\x20\1")
      + message(b"stderr", 0, b"whole", b"\x20\1\x2a\2\x08\1"))
write("docker_stdout/json", b"j" + b'{"log":"one\\n","stream":"stdout","time":"2021-03-05T07:00:00.000000001Z"}\n'
      b'{"log":"two","stream":"stderr","attrs":{"tag":"x"},"time":"2021-03-05T07:00:01Z"}\n{"log":"cut')

# An ACL as an attribute (include/uapi/linux/posix_acl_xattr.h): user::rw-,user:5:r--,group::r--,mask::r--,other::---
write("acl/one-user", struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", tag, may, who)
    for tag, may, who in [(1, 6, 0xffffffff), (2, 4, 5), (4, 4, 0xffffffff), (16, 4, 0xffffffff), (32, 0, 0xffffffff)]))
