// SPDX-License-Identifier: GPL-2.0

//! A control group of the host that limits memory, of either version.

use anyhow::{Context, Result, bail, ensure};
use procfs::process::Process;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// A group, which goes when this is dropped; nothing may run in it then.
pub struct Cgroup {
    path: PathBuf,
    version: Version,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

impl Cgroup {
    /// Makes one below the group that the lab is in, or above it where it has to be:
    /// with version 2, a group that processes are in hands out no controllers.
    pub fn new(name: &str, limit_mib: u64) -> Result<Self> {
        let (base, version) = base()?;
        let path = base.join(format!("{name}-{}", std::process::id()));
        fs::create_dir(&path).with_context(|| {
            format!(
                "cannot make the control group {}: this part is for root, or for sudo",
                path.display()
            )
        })?;
        let group = Cgroup { path, version };
        let file = match version {
            Version::V1 => "memory.limit_in_bytes",
            Version::V2 => "memory.max",
        };
        group.write(file, &(limit_mib << 20).to_string())?;
        Ok(group)
    }

    /// Has nothing of it swapped out, as on a host without swap.
    pub fn forbid_swap(&self) -> Result<()> {
        match self.version {
            Version::V1 => self.write("memory.swappiness", "0"),
            Version::V2 => self.write("memory.swap.max", "0"),
        }
    }

    /// Where a process writes itself to be in it.
    pub fn procs(&self) -> Result<File> {
        let path = self.path.join("cgroup.procs");
        let file = File::options().write(true).open(&path);
        file.with_context(|| path.display().to_string())
    }

    /// How many processes were killed for want of memory.
    pub fn kills(&self) -> Result<u64> {
        let file = match self.version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        };
        keyed(&self.read(file)?, "oom_kill").with_context(|| format!("{file} has no oom_kill"))
    }

    /// The most memory that was used, in MiB, where the kernel tells (v2: Linux 5.19).
    pub fn peak_mib(&self) -> Option<u64> {
        let file = match self.version {
            Version::V1 => "memory.max_usage_in_bytes",
            Version::V2 => "memory.peak",
        };
        Some(self.read(file).ok()?.trim().parse::<u64>().ok()? >> 20)
    }

    /// What is on swap now, in MiB; nothing where swap is not accounted.
    pub fn swap_mib(&self) -> Option<u64> {
        let bytes = match self.version {
            Version::V1 => keyed(&self.read("memory.stat").ok()?, "swap")?,
            Version::V2 => self.read("memory.swap.current").ok()?.trim().parse().ok()?,
        };
        Some(bytes >> 20)
    }

    fn read(&self, file: &str) -> Result<String> {
        let path = self.path.join(file);
        fs::read_to_string(&path).with_context(|| path.display().to_string())
    }

    fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.path.join(file);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // A process that was killed may take a moment to leave.
        for _ in 0..100 {
            if fs::remove_dir(&self.path).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}

/// The value of "key value" lines.
fn keyed(text: &str, key: &str) -> Option<u64> {
    let line = text
        .lines()
        .find(|line| line.split_whitespace().next() == Some(key));
    line?.split_whitespace().nth(1)?.parse().ok()
}

/// Where groups that limit memory can be made.
fn base() -> Result<(PathBuf, Version)> {
    let process = Process::myself()?;
    let mounts = process.mountinfo()?;
    let groups = process.cgroups()?;
    let own = |is_ours: &dyn Fn(&[String]) -> bool| {
        let mut groups = groups.0.iter();
        let group = groups.find(|group| is_ours(&group.controllers));
        group.map(|group| group.pathname.trim_start_matches('/').to_owned())
    };
    let has_memory = |options: &std::collections::HashMap<String, Option<String>>| {
        options.contains_key("memory")
    };
    if let Some(mount) = mounts
        .iter()
        .find(|mount| mount.fs_type == "cgroup" && has_memory(&mount.super_options))
    {
        let own = own(&|controllers| controllers.iter().any(|name| name == "memory"));
        let below = mount.mount_point.join(own.unwrap_or_default());
        // In a container the group's name may be one of outside.
        let base = if below.is_dir() {
            below
        } else {
            mount.mount_point.clone()
        };
        return Ok((base, Version::V1));
    }
    let Some(mount) = mounts.iter().find(|mount| mount.fs_type == "cgroup2") else {
        bail!("the host has no control groups mounted");
    };
    let own = own(&|controllers| controllers.iter().all(String::is_empty));
    let below = mount.mount_point.join(own.unwrap_or_default());
    let hands_out = |path: &&Path| {
        let controllers = fs::read_to_string(path.join("cgroup.subtree_control"));
        controllers.is_ok_and(|text| text.split_whitespace().any(|name| name == "memory"))
    };
    let base = below
        .ancestors()
        .take_while(|path| path.starts_with(&mount.mount_point))
        .find(hands_out);
    ensure!(
        base.is_some(),
        "no control group from {} up hands out the memory controller",
        below.display()
    );
    Ok((base.unwrap_or(&below).to_owned(), Version::V2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_whole() {
        let text = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        assert_eq!(keyed(text, "oom_kill"), Some(3));
        assert_eq!(keyed(text, "oom"), None);
    }
}
