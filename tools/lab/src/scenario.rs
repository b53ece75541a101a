// SPDX-License-Identifier: GPL-2.0

//! The guests that selftests are run in.

use crate::qemu::BALLOON;
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// A kind of guest.
#[derive(Debug, PartialEq, Eq)]
pub struct Scenario {
    pub name: &'static str,
    /// `-device` arguments.
    pub devices: &'static [&'static str],
    /// Words for the kernel command line.
    pub kernel_args: &'static str,
    /// Whether "all" includes it.
    pub in_all: InAll,
}

/// Whether "all" includes a scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InAll {
    Yes,
    /// It needs a kernel without the series.
    No,
    /// If the module brings KUnit tests.
    WithKunit,
}

/// The scenario that runs the module's KUnit tests, and no selftest.
pub const KUNIT: &str = "kunit";

/// All there are. Which selftests each runs stands in their file "scenarios".
pub const SCENARIOS: [Scenario; 6] = [
    Scenario {
        name: "balloon",
        devices: &[BALLOON],
        kernel_args: "",
        in_all: InAll::Yes,
    },
    Scenario {
        name: "no-balloon",
        devices: &[],
        kernel_args: "",
        in_all: InAll::Yes,
    },
    Scenario {
        name: "no-feature",
        devices: &["virtio-balloon-pci,free-page-reporting=off"],
        kernel_args: "",
        in_all: InAll::Yes,
    },
    Scenario {
        name: "shuffle",
        devices: &[BALLOON],
        kernel_args: "page_alloc.shuffle=1",
        in_all: InAll::Yes,
    },
    Scenario {
        name: "unpatched",
        devices: &[BALLOON],
        kernel_args: "",
        in_all: InAll::No,
    },
    Scenario {
        name: KUNIT,
        devices: &[BALLOON],
        kernel_args: "",
        in_all: InAll::WithKunit,
    },
];

/// The scenarios of these names, in order.
pub fn select(names: &[String], has_kunit: bool) -> Result<Vec<&'static Scenario>> {
    let mut selected: Vec<&Scenario> = Vec::new();
    for name in names {
        let before = selected.len();
        selected.extend(SCENARIOS.iter().filter(|scenario| {
            scenario.name == name
                || name == "all"
                    && match scenario.in_all {
                        InAll::Yes => true,
                        InAll::No => false,
                        InAll::WithKunit => has_kunit,
                    }
        }));
        if selected.len() == before {
            let known: Vec<_> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
            bail!(
                "there is no scenario \"{name}\"; there are all, {}",
                known.join(", ")
            );
        }
    }
    let mut seen = Vec::new();
    selected.retain(|scenario| {
        !seen.contains(&scenario.name) && {
            seen.push(scenario.name);
            true
        }
    });
    Ok(selected)
}

/// The selftests of each scenario.
pub type Lists = BTreeMap<String, Vec<String>>;

/// Reads which selftests run where, and checks that it fits what is installed: a
/// test that no scenario runs would be forgotten.
pub fn read_lists(selftests: &Path) -> Result<Lists> {
    let path = selftests.join("scenarios");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let lists = parse_lists(&text).with_context(|| path.display().to_string())?;

    let listed: Vec<_> = lists.values().flatten().collect();
    for test in &listed {
        ensure!(
            is_program(&selftests.join(test)),
            "{} lists {test}, which is not there or cannot be executed",
            path.display()
        );
    }
    for entry in fs::read_dir(selftests)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        ensure!(
            !name.ends_with(".sh")
                || ["lib.sh", "ktap_helpers.sh"].contains(&name.as_str())
                || listed.contains(&&name),
            "{name} is installed, but no scenario in {} runs it",
            path.display()
        );
    }
    Ok(lists)
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o100 != 0)
}

/// Lines of "scenario: test ...".
fn parse_lists(text: &str) -> Result<Lists> {
    let mut lists = Lists::new();
    for line in text.lines() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, tests) = line
            .split_once(':')
            .with_context(|| format!("no colon in \"{line}\""))?;
        ensure!(
            SCENARIOS.iter().any(|scenario| scenario.name == name),
            "there is no scenario \"{name}\""
        );
        let tests: Vec<_> = tests.split_whitespace().map(str::to_owned).collect();
        ensure!(!tests.is_empty(), "{name} has no test");
        ensure!(
            lists.insert(name.to_owned(), tests).is_none(),
            "{name} is there twice"
        );
    }
    Ok(lists)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(selected: Result<Vec<&Scenario>>) -> Vec<&str> {
        selected.unwrap().iter().map(|s| s.name).collect()
    }

    #[test]
    fn all_is_what_suits_the_kernel() {
        let all = ["all".to_owned()];
        let four = ["balloon", "no-balloon", "no-feature", "shuffle"];
        assert_eq!(names(select(&all, false)), four);
        assert_eq!(names(select(&all, true)), [&four[..], &["kunit"]].concat());
        let more = ["all", "unpatched", "balloon"].map(str::to_owned);
        assert_eq!(
            names(select(&more, false)),
            [&four[..], &["unpatched"]].concat()
        );
        assert!(select(&["ballon".to_owned()], false).is_err());
    }

    #[test]
    fn lists_are_read_and_checked() {
        let lists = parse_lists("# x\nballoon: a.sh b.sh\n\nshuffle: c.sh\n").unwrap();
        assert_eq!(lists["balloon"], ["a.sh", "b.sh"]);
        assert_eq!(lists["shuffle"], ["c.sh"]);
        for bad in [
            "balloon a.sh",
            "nowhere: a.sh",
            "balloon:",
            "shuffle: a\nshuffle: b",
        ] {
            assert!(parse_lists(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_forgotten_or_missing_test_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &str, mode| {
            let path = dir.path().join(name);
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        };
        write("scenarios", "balloon: a.sh", 0o644);
        write("lib.sh", "", 0o644);
        let error = |dir: &Path| read_lists(dir).unwrap_err().to_string();
        assert!(error(dir.path()).contains("lists a.sh"));
        write("a.sh", "", 0o644);
        assert!(error(dir.path()).contains("lists a.sh"));
        write("a.sh", "", 0o755);
        read_lists(dir.path()).unwrap();
        write("b.sh", "", 0o755);
        assert!(error(dir.path()).contains("b.sh is installed, but"));
    }
}
