// SPDX-License-Identifier: GPL-2.0

//! The guests that selftests are run in.

use crate::qemu::{BALLOON, Hardware};
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
    /// Memory in MiB, if it matters; see [`DEBUG_MIB`].
    pub mem_mib: Option<u64>,
    pub hardware: Hardware,
    /// Whether "all" includes it.
    pub in_all: InAll,
    /// About how long it takes in the debug guest: those that take longest begin first.
    pub seconds: u32,
}

impl Scenario {
    /// Memory in MiB of its guest, where most have `usual`.
    pub fn mem_mib(&self, usual: u64, is_debug: bool) -> u64 {
        match self.mem_mib {
            Some(mib) if is_debug => mib + DEBUG_MIB,
            Some(mib) => mib,
            None => usual,
        }
    }

    /// What the host needs for it, in MiB.
    pub fn size_mib(&self, usual: u64, is_debug: bool) -> u64 {
        /// QEMU's own, the initramfs and what TCG translates among it.
        const QEMU_MIB: u64 = 768;
        let memory = match self.hardware.nodes {
            [] => self.mem_mib(usual, is_debug),
            nodes => nodes.iter().sum(),
        };
        memory
            + self.hardware.hotplug_mib
            + self.hardware.beside_mib
            + self.hardware.virtio_mem_mib
            + self.hardware.disk_mib
            + QEMU_MIB
    }
}

/// In which guest "all" includes a scenario, if a selftest is listed for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InAll {
    /// In the debug guest: what it does matters, and the checks of that kernel see most. "every"
    /// includes it in the release guest as well.
    Functional,
    /// In the release guest, as it takes the debug guest too long. "every" includes it in either.
    Costly,
    /// In the debug guest alone, for which it is made.
    Debug,
    /// In none, but "every" includes it in the debug guest, for which it is made: it takes long.
    Long,
    /// In the release guest alone: it measures, or is about the host.
    Release,
    /// In none. It is run by its name alone, as by a script of its own or in a kernel without the
    /// series.
    No,
}

impl InAll {
    /// Whether this word for many scenarios includes it.
    fn is_in(self, word: &str, is_debug: bool) -> bool {
        match self {
            Self::Functional => is_debug && word == ALL || word == EVERY,
            Self::Costly => !is_debug && word == ALL || word == EVERY,
            Self::Debug => is_debug && [ALL, EVERY].contains(&word),
            Self::Long => is_debug && word == EVERY,
            Self::Release => !is_debug && [ALL, EVERY].contains(&word),
            Self::No => false,
        }
    }
}

/// Each scenario in the guest that suits it best.
pub const ALL: &str = "all";

/// All that this guest can run.
pub const EVERY: &str = "every";

/// What the debug guest has more than a scenario asks for, in MiB: what its kernel
/// keeps of each page and in itself, so that about as much is free in either guest.
pub const DEBUG_MIB: u64 = 128;

/// The scenario that runs the module's KUnit tests, and no selftest.
pub const KUNIT: &str = "kunit";

/// A guest with a balloon.
const PLAIN: Scenario = Scenario {
    name: "",
    devices: &[BALLOON],
    kernel_args: "",
    mem_mib: None,
    hardware: Hardware::PLAIN,
    in_all: InAll::Functional,
    seconds: 20,
};

/// What sleep, hot-unplug and restarts need: a balloon that can be unplugged, a disk
/// to hibernate to, and what the guest was booted with.
const POWER: Hardware = Hardware {
    disk_mib: 1024,
    serial: true,
    boot_disks: true,
    args: &["-global", "ICH9-LPC.disable_s3=0"],
    ..Hardware::PLAIN
};

/// Zones of every kind: DMA and DMA32 on node 0, DMA32 and Normal on node 1, Normal on
/// node 2; and room for more memory.
const NUMA: Hardware = Hardware {
    nodes: &[1024, 2048, 1024],
    hotplug_mib: 1024,
    ..Hardware::PLAIN
};

/// All there are. Which selftests each runs stands in their file "scenarios".
pub const SCENARIOS: [Scenario; 35] = [
    Scenario {
        name: "smoke",
        in_all: InAll::Release,
        seconds: 60,
        ..PLAIN
    },
    Scenario {
        name: "balloon",
        in_all: InAll::Costly,
        seconds: 450,
        ..PLAIN
    },
    // It tells fast cycles from slow ones.
    Scenario {
        name: "pacing",
        in_all: InAll::Release,
        seconds: 300,
        ..PLAIN
    },
    // To a guest that was stopped for half a minute it looks as if a CPU had hung, with or without
    // hinting: RCU and the watchdog are told to have more patience.
    Scenario {
        name: "fuzz",
        in_all: InAll::Costly,
        kernel_args: "rcupdate.rcu_cpu_stall_timeout=120 watchdog_thresh=60",
        seconds: 130,
        ..PLAIN
    },
    Scenario {
        name: "no-balloon",
        devices: &[],
        ..PLAIN
    },
    Scenario {
        name: "no-feature",
        devices: &["virtio-balloon-pci,free-page-reporting=off"],
        ..PLAIN
    },
    Scenario {
        name: "shuffle",
        kernel_args: "page_alloc.shuffle=1",
        ..PLAIN
    },
    // What debugobjects does on top of the thread allocates, and the thread must not.
    Scenario {
        name: "alloc",
        kernel_args: "no_debug_objects",
        seconds: 50,
        ..PLAIN
    },
    Scenario {
        name: "unpatched",
        in_all: InAll::No,
        ..PLAIN
    },
    // For a kernel with KCSAN, which is switched on by its first selftest (scripts/kcsan.sh).
    Scenario {
        name: "kcsan",
        // It is to find more than one race; emulated, CPUs meet more seldom than by itself.
        kernel_args: "panic_on_warn=0 kcsan.udelay_task=200 kcsan.skip_watch=1000",
        mem_mib: Some(1536),
        in_all: InAll::No,
        ..PLAIN
    },
    // Both kernels run it, with what it runs on a disk (scripts/suites.sh). No KUnit suite
    // runs before it asks for it.
    Scenario {
        name: "suites",
        kernel_args: "kunit.autorun=0",
        in_all: InAll::No,
        ..PLAIN
    },
    // Without a test that fills the log of a guest: both kernels run it.
    Scenario {
        name: "figures",
        mem_mib: Some(1024),
        in_all: InAll::No,
        ..PLAIN
    },
    // An unpatched kernel runs it, too. It measures, which the debug guest is no good for.
    Scenario {
        name: "rehint",
        seconds: 60,
        in_all: InAll::Release,
        devices: &[],
        ..PLAIN
    },
    // For tools that read dumps: both kernels run it, with nothing reported from boot on.
    Scenario {
        name: "dump",
        devices: &[BALLOON, "vmcoreinfo"],
        kernel_args: "page_reporting.page_reporting_delay_ms=100000000",
        mem_mib: Some(1024),
        in_all: InAll::No,
        ..PLAIN
    },
    Scenario {
        name: "numa",
        in_all: InAll::Costly,
        kernel_args: "cma=64M",
        hardware: NUMA,
        seconds: 100,
        ..PLAIN
    },
    Scenario {
        name: "poison",
        kernel_args: "page_poison=1",
        seconds: 70,
        in_all: InAll::Debug,
        ..PLAIN
    },
    // Small blocks that are allocated are unmapped, and have pages beside them which are
    // neither free nor used.
    Scenario {
        name: "guard",
        kernel_args: "debug_pagealloc=on debug_guardpage_minorder=2",
        seconds: 70,
        in_all: InAll::Debug,
        ..PLAIN
    },
    Scenario {
        name: "leak",
        kernel_args: "kmemleak=on",
        seconds: 150,
        devices: &[],
        in_all: InAll::Long,
        ..PLAIN
    },
    Scenario {
        name: "power",
        devices: &[
            "pcie-root-port,id=slot0,chassis=1",
            "virtio-balloon-pci,id=balloon0,bus=slot0,free-page-reporting=on",
        ],
        kernel_args: "resume=/dev/vda no_console_suspend",
        mem_mib: Some(1024),
        hardware: POWER,
        in_all: InAll::Release,
        seconds: 500,
    },
    // It is moved to another QEMU, saved and loaded: about the host, and slow with KASAN.
    Scenario {
        name: "moves",
        in_all: InAll::Release,
        mem_mib: Some(1024),
        hardware: Hardware {
            snapshots: true,
            ..Hardware::PLAIN
        },
        seconds: 120,
        ..PLAIN
    },
    // What operators do: about the host, and by time, so that the debug guest has none of it.
    Scenario {
        name: "rollback",
        in_all: InAll::Release,
        mem_mib: Some(2048),
        hardware: Hardware {
            snapshots: true,
            ..Hardware::PLAIN
        },
        seconds: 25,
        ..PLAIN
    },
    Scenario {
        name: "burst",
        in_all: InAll::Release,
        mem_mib: Some(4096),
        seconds: 35,
        ..PLAIN
    },
    Scenario {
        name: "free-page-hint",
        devices: &["virtio-balloon-pci,free-page-reporting=on,free-page-hint=on,iothread=io"],
        in_all: InAll::Release,
        mem_mib: Some(4096),
        hardware: Hardware {
            args: &["-object", "iothread,id=io"],
            ..Hardware::PLAIN
        },
        seconds: 35,
        ..PLAIN
    },
    Scenario {
        name: "virtio-mem",
        kernel_args: "memhp_default_state=online_movable",
        in_all: InAll::Release,
        mem_mib: Some(1024),
        hardware: Hardware {
            virtio_mem_mib: 1024,
            ..Hardware::PLAIN
        },
        seconds: 35,
        ..PLAIN
    },
    Scenario {
        name: "vhost-user",
        in_all: InAll::Release,
        mem_mib: Some(2048),
        hardware: Hardware {
            vhost_user_mib: 64,
            ..Hardware::PLAIN
        },
        seconds: 30,
        ..PLAIN
    },
    // The guest of the test itself does nothing but to direct the two.
    Scenario {
        name: "pair",
        in_all: InAll::Release,
        mem_mib: Some(512),
        hardware: Hardware {
            beside_mib: 2048,
            ..Hardware::PLAIN
        },
        seconds: 40,
        ..PLAIN
    },
    Scenario {
        name: "locked",
        in_all: InAll::Release,
        mem_mib: Some(1024),
        hardware: Hardware {
            locked: true,
            ..Hardware::PLAIN
        },
        ..PLAIN
    },
    // What is hinted is a test module's own device.
    Scenario {
        name: "sim",
        in_all: InAll::Costly,
        seconds: 550,
        devices: &[],
        kernel_args: "cma=64M",
        ..PLAIN
    },
    // Counts free memory to the block, which moves by more in the debug guest: KASAN keeps
    // what was freed for a while.
    Scenario {
        name: "sim-spare",
        seconds: 60,
        in_all: InAll::Release,
        devices: &[],
        kernel_args: "cma=64M",
        ..PLAIN
    },
    // KASAN would have most of its memory.
    Scenario {
        name: "sim-small",
        in_all: InAll::Release,
        seconds: 40,
        devices: &[],
        mem_mib: Some(128),
        ..PLAIN
    },
    // It takes a release guest a minute and a half, and the debug guest much longer.
    Scenario {
        name: "sim-large",
        seconds: 90,
        in_all: InAll::Release,
        devices: &[],
        mem_mib: Some(4096),
        ..PLAIN
    },
    Scenario {
        name: "sim-poison",
        seconds: 150,
        devices: &[],
        kernel_args: "page_poison=1",
        in_all: InAll::Debug,
        ..PLAIN
    },
    Scenario {
        name: "sim-init",
        seconds: 150,
        devices: &[],
        kernel_args: "init_on_free=1",
        in_all: InAll::Release,
        ..PLAIN
    },
    Scenario {
        name: "vsim",
        seconds: 300,
        devices: &[],
        // It sleeps, and goes over to a fresh kernel, too.
        hardware: Hardware {
            serial: true,
            boot_disks: true,
            ..Hardware::PLAIN
        },
        ..PLAIN
    },
    Scenario {
        name: KUNIT,
        in_all: InAll::Debug,
        ..PLAIN
    },
];

/// The scenarios of these names but for those to skip, in order. [`ALL`] and [`EVERY`] leave out
/// those without a test.
pub fn select(
    names: &[String],
    skip: &[String],
    lists: &Lists,
    is_debug: bool,
) -> Result<Vec<&'static Scenario>> {
    let mut selected: Vec<&Scenario> = Vec::new();
    if let Some(name) = skip.iter().find(|&name| !is_known(name)) {
        bail!("there is no scenario \"{name}\" to skip");
    }
    for name in names {
        let before = selected.len();
        selected.extend(SCENARIOS.iter().filter(|scenario| {
            let has_tests = scenario.name == KUNIT || lists.contains_key(scenario.name);
            scenario.name == name || has_tests && scenario.in_all.is_in(name, is_debug)
        }));
        if selected.len() == before {
            let known: Vec<_> = SCENARIOS.iter().map(|scenario| scenario.name).collect();
            bail!(
                "there is no scenario \"{name}\"; there are {ALL}, {EVERY}, {}",
                known.join(", ")
            );
        }
    }
    let mut seen = Vec::new();
    selected.retain(|scenario| {
        !seen.contains(&scenario.name) && !skip.iter().any(|name| name == scenario.name) && {
            seen.push(scenario.name);
            true
        }
    });
    Ok(selected)
}

fn is_known(name: &str) -> bool {
    SCENARIOS.iter().any(|scenario| scenario.name == name)
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

/// What runs last in each scenario: it looks at the whole kernel log.
const AT_THE_END: &str = "dmesg.sh";

/// Of a scenario's tests the one that is asked for, and the last; all if none is. Empty if it
/// is not there.
pub fn narrow(tests: &[String], only: Option<&str>) -> Vec<String> {
    let Some(only) = only else {
        return tests.to_vec();
    };
    if !tests.iter().any(|test| test == only) {
        return Vec::new();
    }
    let is_wanted = |test: &&String| *test == only || *test == AT_THE_END;
    tests.iter().filter(is_wanted).cloned().collect()
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

    #[test]
    fn all_is_what_suits_the_kernel_and_has_tests() {
        let lists =
            parse_lists("shuffle: a\nballoon: b\nsim-poison: c\nlocked: e\nunpatched: d").unwrap();
        let names = |wanted: &[&str], is_debug| -> Result<Vec<&str>> {
            let wanted: Vec<_> = wanted.iter().map(|&name| name.to_owned()).collect();
            let selected = select(&wanted, &[], &lists, is_debug)?;
            Ok(selected.iter().map(|scenario| scenario.name).collect())
        };
        assert_eq!(names(&["all"], false).unwrap(), ["balloon", "locked"]);
        assert_eq!(
            names(&["all"], true).unwrap(),
            ["shuffle", "sim-poison", "kunit"]
        );
        assert_eq!(
            names(&["every"], true).unwrap(),
            ["balloon", "shuffle", "sim-poison", "kunit"]
        );
        assert_eq!(
            names(&["every", "unpatched", "balloon"], false).unwrap(),
            ["balloon", "shuffle", "locked", "unpatched"]
        );
        // By its name, so that it is missed.
        assert_eq!(names(&["vsim"], false).unwrap(), ["vsim"]);
        assert!(names(&["ballon"], false).is_err());
    }

    #[test]
    fn what_is_to_be_skipped_is_left_out() {
        let lists = parse_lists("shuffle: a\nballoon: b").unwrap();
        let every = [EVERY.to_owned()];
        let selected = select(&every, &["balloon".to_owned()], &lists, false).unwrap();
        assert_eq!(selected.len(), 1);
        assert_eq!(selected[0].name, "shuffle");
        assert!(select(&every, &["ballon".to_owned()], &lists, false).is_err());
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
    fn one_test_runs_alone_but_for_the_last() {
        let lists = parse_lists("balloon: a.sh b.sh dmesg.sh").unwrap();
        let tests = &lists["balloon"];
        assert_eq!(narrow(tests, None), *tests);
        assert_eq!(narrow(tests, Some("b.sh")), ["b.sh", "dmesg.sh"]);
        assert_eq!(narrow(tests, Some("dmesg.sh")), ["dmesg.sh"]);
        assert!(narrow(tests, Some("c.sh")).is_empty());
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
