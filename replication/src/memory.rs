//! What memory the process has, and what it could still get. Linux tells it, other systems don't.

use std::{
    fs::read_to_string,
    path::{Path, PathBuf},
};

/// Where control groups are.
const GROUPS: &str = "/sys/fs/cgroup";

/// Memory that the process has, in bytes.
#[must_use]
pub fn resident() -> Option<u64> {
    // In kibibytes; `statm` counts pages, whose size differs between machines.
    line(&read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

/// Memory that the process could still get, in bytes: what the machine has left, or the tightest of the control groups
/// that the process is in, if that is less.
#[must_use]
pub fn free() -> Option<u64> {
    let machine = read_to_string("/proc/meminfo").ok().and_then(|info| line(&info, "MemAvailable:"));
    let own = read_to_string("/proc/self/cgroup").unwrap_or_default();
    [machine, free_in_groups(Path::new(GROUPS), &own)].into_iter().flatten().min()
}

/// The files of a control group about memory, in one of the two versions of control groups.
struct Files {
    most: &'static str,
    used: &'static str,
    /// What `memory.stat` calls the pages of files that nobody has used lately.
    unused_files: &'static str,
}

const FIRST: Files = Files {
    most: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    unused_files: "total_inactive_file ",
};
const SECOND: Files = Files { most: "memory.max", used: "memory.current", unused_files: "inactive_file " };

/// What the tightest of a process's control groups leaves; none where none of them has a bound. `own` is its
/// `/proc/self/cgroup`, and a container's own group is at the root.
fn free_in_groups(root: &Path, own: &str) -> Option<u64> {
    let path_by = |wanted: fn(&str) -> bool| {
        let found = own.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            wanted(controllers).then(|| path.trim_start_matches('/'))
        });
        PathBuf::from(found.unwrap_or_default())
    };
    let second = (root.to_owned(), path_by(str::is_empty), SECOND);
    let memory = |controllers: &str| controllers.split(',').any(|controller| controller == "memory");
    let first = (root.join("memory"), path_by(memory), FIRST);
    let free = [second, first].into_iter().filter_map(|(root, path, files)| {
        let group = root.join(path);
        let around = group.ancestors().take_while(|group| group.starts_with(&root));
        around.filter_map(|group| free_in_group(group, &files)).min()
    });
    free.min()
}

/// What a control group's bound leaves. The system counts what it keeps of files as used, and frees it when there is need.
fn free_in_group(group: &Path, files: &Files) -> Option<u64> {
    let read = |file: &str| read_to_string(group.join(file)).ok();
    let most = read(files.most)?.trim().parse::<u64>().ok()?;
    let used = read(files.used)?.trim().parse::<u64>().ok()?;
    let stat = read("memory.stat").unwrap_or_default();
    let unused = stat.lines().find_map(|line| line.strip_prefix(files.unused_files)?.trim().parse().ok());
    Some(most.saturating_sub(used.saturating_sub(unused.unwrap_or(0))))
}

/// The number of kibibytes in a line of such a file, in bytes.
fn line(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_by_its_name() {
        assert_eq!(line("MemTotal: 1 kB\nMemAvailable:   12 kB\n", "MemAvailable:"), Some(12 << 10));
        assert_eq!(line("MemTotal: 1 kB", "MemAvailable:"), None);
    }

    #[test]
    fn the_tightest_group_counts_and_files_that_it_keeps_are_free() {
        let root = tempfile::tempdir().expect("a folder");
        let write = |group: &str, file: &str, text: &str| {
            let group = root.path().join(group);
            std::fs::create_dir_all(&group).expect("a folder");
            std::fs::write(group.join(file), text).expect("written");
        };
        let free = |own: &str| free_in_groups(root.path(), own);
        assert_eq!(free("0::/system.slice/mychat.service\n"), None);
        // A service with a bound, in a slice with one, too.
        for (group, most, used) in
            [("system.slice/mychat.service", "1000\n", "900\n"), ("system.slice", "5000\n", "4500\n")]
        {
            write(group, "memory.max", most);
            write(group, "memory.current", used);
        }
        write("system.slice/mychat.service", "memory.stat", "anon 100\ninactive_file 700\nactive_file 1\n");
        assert_eq!(free("0::/system.slice/mychat.service\n"), Some(500));
        write("system.slice", "memory.max", "max\n");
        assert_eq!(free("0::/system.slice/mychat.service\n"), Some(800));
        assert_eq!(free("0::/elsewhere\n"), None);
        // A container sees its own group at the root, under whatever name it is told.
        write("", "memory.max", "300");
        write("", "memory.current", "250");
        assert_eq!(free("0::/\n"), Some(50));
        assert_eq!(free("0::/docker/4711\n"), Some(50));
        // The first version has a tree for each controller.
        write("memory/user", "memory.limit_in_bytes", "90");
        write("memory/user", "memory.usage_in_bytes", "60");
        write("memory/user", "memory.stat", "inactive_file 1\ntotal_inactive_file 10\n");
        assert_eq!(free("7:cpu,cpuacct:/\n4:memory:/user\n0::/\n"), Some(40));
    }
}
