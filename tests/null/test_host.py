"""What is read of the host: caches of the cores that may be used, and how large arrays may grow with them."""

import shutil
import subprocess

import pytest

from seqroof.profiler import host

GIB = 2**30


def cache(cpus, core, index, level, kind, shared, size):
    folder = cpus / f"cpu{core}" / "cache" / f"index{index}"
    folder.mkdir(parents=True)
    for name, text in (("level", level), ("type", kind), ("shared_cpu_list", shared), ("size", size)):
        (folder / name).write_text(f"{text}\n")


def processor(cpus, complexes, cores_each):
    """Cores in complexes of `cores_each`, each complex with 32 MiB of its own, as the EPYCs have them."""
    for core in range(complexes * cores_each):
        first = core // cores_each * cores_each
        cache(cpus, core, 0, 1, "Data", core, "32K")
        cache(cpus, core, 1, 1, "Instruction", core, "32K")
        cache(cpus, core, 2, 2, "Unified", core, "1024K")
        cache(cpus, core, 3, 3, "Unified", f"{first}-{first + cores_each - 1}", "32768K")


def test_all_last_caches_of_the_usable_cores_count(tmp_path):
    processor(tmp_path, complexes=2, cores_each=4)
    both = host.caches(tmp_path, set(range(8)))
    assert both == {"last": 64 * 2**20, "private": 2**20}
    assert host.caches(tmp_path, {3, 4})["last"] == 64 * 2**20, "one core in either complex"
    assert host.caches(tmp_path, {5, 6, 7})["last"] == 32 * 2**20, "the other complex may not be used"


def test_without_a_report_a_common_size_is_assumed(tmp_path):
    assert host.caches(tmp_path, {0}) == {"last": 64 * 2**20, "private": 2**20}


def test_arrays_may_grow_with_the_threads_that_stream_through_them():
    assert host.most_array_bytes(100, 2) == host.most_array_bytes(100, 8) == 100
    assert host.most_array_bytes(100, 96) == 1200


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
def test_the_commit_is_that_of_the_code(tmp_path):
    """Recorded results are no code, and an installation below a repository is none of its files."""

    def git(*words):
        who = ("-c", "user.name=n", "-c", "user.email=e", "-c", "commit.gpgsign=false")
        return subprocess.run(["git", "-C", tmp_path, *who, *words], check=True, capture_output=True, text=True).stdout

    code = tmp_path / "code"
    for name in ("code", "results", "installed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("before")
    (tmp_path / ".gitignore").write_text("installed")
    assert host.commit_of(code) == ""
    git("init", "--quiet")
    git("add", "--all")
    git("commit", "--quiet", "--message", "m")
    commit = git("rev-parse", "HEAD").strip()
    (tmp_path / "results" / "file").write_text("after")
    (tmp_path / "link").symlink_to(code)
    assert [host.commit_of(tmp_path / name) for name in ("code", "link", "installed")] == [commit, commit, ""]
    (code / "file").write_text("after")
    assert host.commit_of(code) == f"{commit}+changes"


def container(root, version, limit, used, inactive, active):
    """A host with 32 GiB available, and a control group of either version with its limit and its use."""
    (root / "proc").mkdir()
    (root / "proc" / "meminfo").write_text(f"MemTotal: 99 kB\nMemAvailable:   {32 * 2**20} kB\n")
    group = root / "cgroup" / ("memory" if version == 1 else "")
    group.mkdir(parents=True)
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if version == 1 else ("memory.max", "memory.current")
    for name, value in zip(names, (limit, used)):
        (group / name).write_text(f"{value}\n")
    lines = [f"anon {used - inactive - active}", f"inactive_file {inactive}", f"active_file {active}"]
    if version == 1:  # its plain figures leave out the groups below, which its use counts
        lines = ["inactive_file 1", "active_file 1", *(f"total_{line}" for line in lines)]
    (group / "memory.stat").write_text("\n".join(lines) + "\n")
    return root / "proc", root / "cgroup"


@pytest.mark.parametrize("version", [1, 2])
def test_files_kept_in_memory_are_free_in_a_container(tmp_path, version):
    tree = container(tmp_path, version, 4 * GIB, 4 * GIB - 100, 2 * GIB, GIB)
    assert host.available_memory_bytes(*tree) == 3 * GIB + 100


@pytest.mark.parametrize(("version", "unlimited"), [(1, 9223372036854771712), (2, "max")])
def test_a_container_without_a_limit_has_what_the_host_has(tmp_path, version, unlimited):
    assert host.available_memory_bytes(*container(tmp_path, version, unlimited, GIB, 0, 0)) == 32 * GIB


def test_a_container_holds_where_the_host_tells_nothing(tmp_path):
    proc, cgroup = container(tmp_path, 2, 4 * GIB, GIB, 0, 0)
    (proc / "meminfo").unlink()
    (cgroup / "memory.stat").unlink()
    assert host.available_memory_bytes(proc, cgroup) == 3 * GIB
    assert host.available_memory_bytes(tmp_path, tmp_path) > 0
