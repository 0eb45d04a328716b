"""Which file system a file is on: SQLite relies on locks and on shared memory."""

import os
from contextlib import suppress
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")

OVER_A_NETWORK = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "9p", "ceph", "glusterfs"),
        *("lustre", "beegfs", "gpfs", "orangefs", "pvfs2", "davfs", "ocfs2", "gfs2", "wekafs"),
        *(
            "fuse.sshfs",
            "fuse.glusterfs",
            "fuse.ceph-fuse",
            "fuse.ceph",
            "fuse.s3fs",
            "fuse.rclone",
        ),
        *(
            "fuse.gcsfuse",
            "fuse.goofys",
            "fuse.juicefs",
            "fuse.davfs",
            "fuse.davfs2",
            "fuse.smbnetfs",
        ),
        *(
            "fuse.curlftpfs",
            "fuse.mount-s3",
            "fuse.mountpoint-s3",
            "fuse.blobfuse",
            "fuse.blobfuse2",
        ),
        *(
            "fuse.beegfs",
            "fuse.moosefs",
            "fuse.mfs",
            "fuse.lizardfs",
            "fuse.seaweedfs",
            "fuse.alluxio",
        ),
    }
)
"""File systems whose files other machines can write to, by their names in Linux."""


def over_a_network(path: Path) -> str | None:
    """Return the type of the network file system that a file is on, if it is on one.

    Returns None too if that cannot be known, as on anything but Linux.
    """
    with suppress(OSError):
        there = next(each for each in (path, *path.parents) if each.exists())
        kind = kind_of(there.stat().st_dev, MOUNTS.read_text())
        return kind if kind in OVER_A_NETWORK else None
    return None


def kind_of(device: int, mounts: str) -> str | None:
    """Return the type of the file system on a device, by the kernel's list of mounts."""
    number = f"{os.major(device)}:{os.minor(device)}"
    for line in mounts.splitlines():
        place, _, system = line.partition(" - ")
        if place.split(" ")[2:3] == [number]:
            return system.split(" ")[0]
    return None
