"""Facts about the host: processor, caches, memory, threads. Reads Linux's /proc and /sys; imports no torch."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path

from ..roofline.units import binary_bytes

_CPUS = Path("/sys/devices/system/cpu")
_PROC, _CGROUP = Path("/proc"), Path("/sys/fs/cgroup")
# Of both versions of control groups: folder, limit, use, and what the sums over all groups below begin with.
_GROUP_FILES = (
    ("", "memory.max", "memory.current", ""),
    ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
)
# Without /sys (macOS, some containers): a last cache of common size, so that cold still means cold.
_ASSUMED_LAST_CACHE = 64 * 2**20
_ASSUMED_PRIVATE_CACHE = 2**20
# So many threads go over half a gigabyte in about ten milliseconds; more of them have more channels to memory.
_THREADS_OF_ONE_SHARE = 8


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(_usable())


def _usable() -> set[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def most_array_bytes(share_bytes: int, threads: int) -> int:
    """The largest array to stream through memory: so many bytes, and as much again for every further eight threads.

    Processors with many cores have many last caches, and an array has to exceed them all together.
    """
    return share_bytes * max(1, threads // _THREADS_OF_ONE_SHARE)


def processor_name() -> str:
    """The model name of the processor."""
    try:
        match = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        match = None
    return match.group(1).strip() if match else platform.processor() or platform.machine()


def _size_bytes(text: str) -> int:
    number, suffix = re.fullmatch(r"(\d+)([KMG]?)", text.strip()).groups()  # type: ignore[union-attr]
    return int(number) * {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}[suffix]


def caches(cpus: Path = _CPUS, cores: set[int] | None = None) -> dict[str, int]:
    """Reported sizes in bytes of the caches of the cores that this process may use.

    `last` : all last-level caches together. A processor can have several, each shared by a few cores, and what all
    threads stream through has to exceed their sum. `private` : the largest cache of a single core.
    On a virtual machine `last` can be the host's whole cache, of which a guest gets a part.
    """
    # Level and the cores that share it -> size: every core of a cache lists that cache once more.
    found: dict[tuple[int, str], int] = {}
    for core in sorted(_usable() if cores is None else cores):
        for index in sorted((cpus / f"cpu{core}" / "cache").glob("index*")):
            try:
                if (index / "type").read_text().strip() != "Instruction":
                    place = int((index / "level").read_text()), (index / "shared_cpu_list").read_text().strip()
                    found[place] = _size_bytes((index / "size").read_text())
            except (OSError, ValueError, AttributeError):
                continue
    if not found:
        return {"last": _ASSUMED_LAST_CACHE, "private": _ASSUMED_PRIVATE_CACHE}
    last_level = max(level for level, _ in found)
    return {
        "last": sum(size for (level, _), size in found.items() if level == last_level),
        "private": max((size for (level, _), size in found.items() if level < last_level), default=0),
    }


def caches_in_words() -> str:
    """Reported cache sizes in words: they tell processors apart that share a name."""
    found = caches()
    return f"last {binary_bytes(found['last'])}, of a core {binary_bytes(found['private'])}"


def available_memory_bytes(proc: Path = _PROC, cgroup: Path = _CGROUP) -> int:
    """Memory that can be used without swapping, the container's limit included. proc, cgroup : other roots, in tests.

    A control group counts the files that its processes have read as memory in use; the kernel gives those up as memory
    is wanted, so they are free here, as they are in MemAvailable.
    """
    limits = [free for free in (_free_of_host(proc), _free_of_group(cgroup)) if free is not None]
    return max(0, min(limits, default=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")))


def _free_of_host(proc: Path) -> int | None:
    try:
        match = re.search(r"MemAvailable:\s+(\d+) kB", (proc / "meminfo").read_text())
    except OSError:
        return None
    return int(match.group(1)) * 1024 if match else None


def _free_of_group(cgroup: Path) -> int | None:
    """What the control group of this container leaves free; None where it sets no limit."""
    for folder, limit_file, used_file, prefix in _GROUP_FILES:
        try:
            limit = (cgroup / folder / limit_file).read_text().strip()
            used = int((cgroup / folder / used_file).read_text())
        except (OSError, ValueError):
            continue
        return int(limit) - used + _file_cache(cgroup / folder / "memory.stat", prefix) if limit.isdigit() else None
    return None


def _file_cache(stat: Path, prefix: str) -> int:
    """Bytes of files that a control group holds in memory; none where it does not tell."""
    try:
        found = re.findall(rf"^{prefix}(?:in)?active_file (\d+)$", stat.read_text(), re.MULTILINE)
    except OSError:
        return 0
    return sum(map(int, found))


def commit_of(folder: Path) -> str:
    """The git commit of a source folder, with "+changes" where more than `results/` of its repository differs.

    Empty outside a repository, and for a folder that the repository around it does not hold, such as an installation.
    """

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        commit = git("rev-parse", "HEAD") if git("ls-files", "--error-unmatch", ".") else ""
        differs = commit and git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":(top,exclude)results")
        return commit + ("+changes" if differs else "")
    except OSError:
        return ""
