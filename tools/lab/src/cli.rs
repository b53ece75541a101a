// SPDX-License-Identifier: GPL-2.0

//! The command line.

use crate::bench::{self, config::Config};
use anyhow::{Context, Result, ensure};
use clap::builder::PossibleValuesParser;
use clap::{Args, Parser, Subcommand, value_parser};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Boots guests under QEMU and measures the memory that they give back.
#[derive(Debug, Parser)]
#[command(name = "lab", version)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Touch and free memory in a guest and watch the host get it back
    Demo(DemoArgs),
    /// Measure page_hinting beside mm/page_reporting, and write a report
    Bench(BenchArgs),
    /// Run the selftests in guests
    Test(TestArgs),
    /// Count what loops cost in guests with and without the series
    Instructions(InstructionsArgs),
    /// Count what hinting itself costs, beside what mm/page_reporting costs
    Hinting(HintingArgs),
    /// Open a shell in a guest
    Shell(ShellArgs),
    /// Watch a QEMU that is running: what its guest has free beside what the host gives
    Watch(WatchArgs),
}

/// What every guest is made of.
#[derive(Debug, Clone, Args)]
pub struct GuestArgs {
    /// Guest kernel image
    #[arg(long, value_name = "BZIMAGE")]
    pub kernel: PathBuf,
    /// QEMU to run
    #[arg(long, value_name = "PROGRAM", default_value = "qemu-system-x86_64")]
    pub qemu: PathBuf,
    /// Static busybox to put into the guest
    #[arg(long, value_name = "FILE", default_value = "/bin/busybox")]
    pub busybox: PathBuf,
    /// Number of virtual CPUs
    #[arg(long, default_value_t = 2, value_parser = value_parser!(u32).range(1..=64))]
    pub smp: u32,
}

#[derive(Debug, Args)]
pub struct DemoArgs {
    #[command(flatten)]
    pub guest: GuestArgs,
    /// The page_hinting module
    #[arg(long, value_name = "KO", required_unless_present = "upstream")]
    pub module: Option<PathBuf>,
    /// Do not load the module: show what the kernel's own mm/page_reporting does
    #[arg(long)]
    pub upstream: bool,
    /// Directory of the installed selftests, which has memhog
    #[arg(long, value_name = "DIR", default_value = "out/selftests")]
    pub selftests: PathBuf,
    /// Guest memory in MiB
    #[arg(long, value_name = "MIB", default_value_t = 4096, value_parser = value_parser!(u64).range(512..=1 << 20))]
    pub mem: u64,
    /// Memory to touch and free in MiB
    #[arg(long, value_name = "MIB", default_value_t = 2048, value_parser = value_parser!(u64).range(16..=1 << 20))]
    pub touch: u64,
    /// How long to watch after the free, in seconds [default: 10, with --upstream 40]
    #[arg(long, value_name = "S", value_parser = value_parser!(u64).range(1..=600))]
    pub window: Option<u64>,
    /// Longest time for each of the guest's steps, in seconds
    #[arg(long, value_name = "S", default_value_t = 120, value_parser = value_parser!(u64).range(1..=3600))]
    pub timeout: u64,
    /// Directory for result.json, demo.png and guest.log
    #[arg(long, value_name = "DIR", default_value = "out/demo")]
    pub out: PathBuf,
}

/// Memory in MiB that a guest needs beside what is touched in it.
pub const GUEST_OWN_MIB: u64 = 256;

impl DemoArgs {
    /// How long the memory is watched after the free.
    pub fn window(&self) -> Duration {
        Duration::from_secs(self.window.unwrap_or(if self.upstream { 40 } else { 10 }))
    }

    /// Longest time for each of the guest's steps.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }

    /// Checks what the parser cannot.
    pub fn validate(&self) -> Result<()> {
        ensure!(
            self.touch + GUEST_OWN_MIB <= self.mem,
            "--touch {} does not fit into --mem {}: the guest itself needs {GUEST_OWN_MIB} MiB",
            self.touch,
            self.mem
        );
        self.guest.validate()?;
        if let Some(module) = &self.module {
            readable("--module", module)?;
        }
        readable("memhog in --selftests", &self.selftests.join("memhog"))
    }
}

#[derive(Debug, Args)]
pub struct WatchArgs {
    /// QEMU's monitor socket, as of -qmp unix:PATH,server=on,wait=off
    #[arg(long, value_name = "SOCKET")]
    pub qmp: PathBuf,
    /// QEMU's process
    #[arg(long, value_name = "PID", value_parser = value_parser!(u32).range(1..=1 << 30))]
    pub pid: u32,
    /// How often to look, in seconds
    #[arg(long, value_name = "S", default_value_t = 1, value_parser = value_parser!(u32).range(1..=3600))]
    pub interval: u32,
    /// End after so many seconds [default: at Ctrl-C]
    #[arg(long = "for", value_name = "S", value_parser = value_parser!(u64).range(1..))]
    pub seconds: Option<u64>,
    /// Directory for watch.json and watch.png
    #[arg(long, value_name = "DIR", default_value = "out/watch")]
    pub out: PathBuf,
}

#[derive(Debug, Clone, Args)]
pub struct TestArgs {
    #[command(flatten)]
    pub guest: GuestArgs,
    /// The page_hinting module
    #[arg(long, value_name = "KO")]
    pub module: PathBuf,
    /// Directory of the installed selftests
    #[arg(long, value_name = "DIR")]
    pub selftests: PathBuf,
    /// What to call this kernel in the report
    #[arg(long, default_value = "release")]
    pub name: String,
    /// Scenarios to run, separated by commas; "all" is each in the guest that suits it best,
    /// "every" all that this guest can run
    #[arg(
        long,
        value_name = "NAME",
        value_delimiter = ',',
        default_value = "all"
    )]
    pub scenario: Vec<String>,
    /// Scenarios to leave out of these, separated by commas
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub skip: Vec<String>,
    /// Of each scenario run this selftest alone, and dmesg.sh after it
    #[arg(long, value_name = "TEST")]
    pub only: Option<String>,
    /// Leave off after this point of a selftest, such as "unload"
    #[arg(long, value_name = "POINT", value_parser = point)]
    pub last: Option<String>,
    /// Guest memory in MiB; 3072 gives a guest with two large zones
    #[arg(long, value_name = "MIB", default_value_t = 3072, value_parser = value_parser!(u64).range(512..=1 << 20))]
    pub mem: u64,
    /// Longest time for a boot and for each test, in seconds
    #[arg(long, value_name = "S", default_value_t = 300, value_parser = value_parser!(u64).range(1..=4_000_000))]
    pub timeout: u64,
    /// Another kernel in the same queue: its name, kernel image, module, selftests and scenarios
    #[arg(long, num_args = 5, value_names = ["NAME", "BZIMAGE", "KO", "DIR", "SCENARIOS"])]
    pub also: Vec<String>,
    /// Scenarios that run at a time; as many as there are processors and memory for
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=64))]
    pub jobs: Option<u32>,
    /// What the guests have as their first disk, for a scenario that wants one with contents
    #[arg(long, value_name = "FILE")]
    pub disk: Option<PathBuf>,
    /// Keep what a kernel with gcov has counted, of each scenario in NAME-SCENARIO.gcov
    #[arg(long)]
    pub coverage: bool,
    /// Directory for the logs
    #[arg(long, value_name = "DIR", default_value = "out/test")]
    pub out: PathBuf,
}

impl TestArgs {
    /// Longest time for a boot and for each test.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }

    /// The arguments for each kernel of the queue.
    pub fn each(&self) -> Vec<Self> {
        let also = self.also.chunks_exact(5).map(|words| {
            let mut args = self.clone();
            args.name.clone_from(&words[0]);
            args.guest.kernel = PathBuf::from(&words[1]);
            args.module = PathBuf::from(&words[2]);
            args.selftests = PathBuf::from(&words[3]);
            args.scenario = words[4].split(',').map(str::to_owned).collect();
            args.skip.clear();
            args
        });
        [self.clone()].into_iter().chain(also).collect()
    }

    /// Checks what the parser cannot.
    pub fn validate(&self) -> Result<()> {
        self.guest.validate()?;
        readable("--module", &self.module)?;
        readable(
            "scenarios in --selftests",
            &self.selftests.join("scenarios"),
        )?;
        match &self.disk {
            Some(disk) => readable("--disk", disk),
            None => Ok(()),
        }
    }
}

#[derive(Debug, Args)]
pub struct InstructionsArgs {
    /// Kernel image with the series
    #[arg(long, value_name = "BZIMAGE")]
    pub kernel: PathBuf,
    /// Kernel image of the same configuration without it
    #[arg(long, value_name = "BZIMAGE")]
    pub base: PathBuf,
    /// The page_hinting module
    #[arg(long, value_name = "KO")]
    pub module: PathBuf,
    /// page_hinting_alloc_bench.ko for --kernel
    #[arg(long, value_name = "KO")]
    pub bench: PathBuf,
    /// page_hinting_alloc_bench.ko for --base
    #[arg(long, value_name = "KO")]
    pub base_bench: PathBuf,
    /// Directory of the installed selftests, which has op_bench and memhog
    #[arg(long, value_name = "DIR", default_value = "out/selftests")]
    pub selftests: PathBuf,
    /// QEMU to run
    #[arg(long, value_name = "PROGRAM", default_value = "qemu-system-x86_64")]
    pub qemu: PathBuf,
    /// Static busybox to put into the guests
    #[arg(long, value_name = "FILE", default_value = "/bin/busybox")]
    pub busybox: PathBuf,
    /// How often each kind of guest is booted
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = value_parser!(u32).range(1..=100))]
    pub boots: u32,
    /// Guest memory in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = value_parser!(u64).range(768..=1 << 20))]
    pub mem: u64,
    /// Longest time for each of a guest's steps, in seconds
    #[arg(long, value_name = "S", default_value_t = 120, value_parser = value_parser!(u64).range(1..=3600))]
    pub timeout: u64,
    /// Directory for result.json and the guests' logs
    #[arg(long, value_name = "DIR", default_value = "out/instructions")]
    pub out: PathBuf,
}

impl InstructionsArgs {
    /// Longest time for each of a guest's steps.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }

    /// What a guest with this kernel is made of.
    pub fn guest(&self, kernel: &Path) -> GuestArgs {
        GuestArgs {
            kernel: kernel.to_owned(),
            qemu: self.qemu.clone(),
            busybox: self.busybox.clone(),
            smp: 1,
        }
    }

    /// Checks what the parser cannot.
    pub fn validate(&self) -> Result<()> {
        self.guest(&self.kernel).validate()?;
        readable("--base", &self.base)?;
        readable("--module", &self.module)?;
        readable("--bench", &self.bench)?;
        readable("--base-bench", &self.base_bench)?;
        for program in ["op_bench", "memhog"] {
            readable("--selftests", &self.selftests.join(program))?;
        }
        Ok(())
    }
}

#[derive(Debug, Args)]
pub struct HintingArgs {
    /// Kernel image with the series
    #[arg(long, value_name = "BZIMAGE")]
    pub kernel: PathBuf,
    /// The same as an ELF file with symbols
    #[arg(long, value_name = "VMLINUX")]
    pub vmlinux: PathBuf,
    /// Kernel image of the same configuration without the series
    #[arg(long, value_name = "BZIMAGE")]
    pub base: PathBuf,
    /// The same as an ELF file with symbols
    #[arg(long, value_name = "VMLINUX")]
    pub base_vmlinux: PathBuf,
    /// The page_hinting module
    #[arg(long, value_name = "KO")]
    pub module: PathBuf,
    /// plugin/count.c, compiled for this QEMU
    #[arg(long, value_name = "FILE")]
    pub plugin: PathBuf,
    /// LLVM's objdump
    #[arg(long, value_name = "PROGRAM", default_value = "llvm-objdump")]
    pub objdump: PathBuf,
    /// Directory of the installed selftests, which has memhog
    #[arg(long, value_name = "DIR", default_value = "out/selftests")]
    pub selftests: PathBuf,
    /// QEMU to run
    #[arg(long, value_name = "PROGRAM", default_value = "qemu-system-x86_64")]
    pub qemu: PathBuf,
    /// Static busybox to put into the guests
    #[arg(long, value_name = "FILE", default_value = "/bin/busybox")]
    pub busybox: PathBuf,
    /// Number of virtual CPUs, which take turns
    #[arg(long, default_value_t = 1, value_parser = value_parser!(u32).range(1..=64))]
    pub smp: u32,
    /// How often each kind of guest is booted
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = value_parser!(u32).range(1..=100))]
    pub boots: u32,
    /// How often each boot measures
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = value_parser!(u32).range(1..=100))]
    pub rounds: u32,
    /// Guest memory in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1024, value_parser = value_parser!(u64).range(1024..=1 << 20))]
    pub mem: u64,
    /// Longest time for each of a guest's steps, in seconds
    #[arg(long, value_name = "S", default_value_t = 600, value_parser = value_parser!(u64).range(1..=3600))]
    pub timeout: u64,
    /// Directory for result.json, the counts and the guests' logs
    #[arg(long, value_name = "DIR", default_value = "out/hinting")]
    pub out: PathBuf,
}

impl HintingArgs {
    /// Longest time for each of a guest's steps.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }

    /// What a guest with this kernel is made of.
    pub fn guest(&self, kernel: &Path) -> GuestArgs {
        GuestArgs {
            kernel: kernel.to_owned(),
            qemu: self.qemu.clone(),
            busybox: self.busybox.clone(),
            smp: self.smp,
        }
    }

    /// Checks what the parser cannot.
    pub fn validate(&self) -> Result<()> {
        self.guest(&self.kernel).validate()?;
        readable("--vmlinux", &self.vmlinux)?;
        readable("--base", &self.base)?;
        readable("--base-vmlinux", &self.base_vmlinux)?;
        readable("--module", &self.module)?;
        readable("--plugin", &self.plugin)
            .context("cc -shared -fPIC -O2 -o count.so tools/lab/plugin/count.c makes it")?;
        readable("memhog in --selftests", &self.selftests.join("memhog"))
    }
}

#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Kernel image with the series
    #[arg(long, value_name = "BZIMAGE")]
    pub kernel: PathBuf,
    /// The same as an ELF file with symbols
    #[arg(long, value_name = "VMLINUX")]
    pub vmlinux: PathBuf,
    /// Kernel image of the same configuration without the series
    #[arg(long, value_name = "BZIMAGE")]
    pub base: PathBuf,
    /// The same as an ELF file with symbols
    #[arg(long, value_name = "VMLINUX")]
    pub base_vmlinux: PathBuf,
    /// The page_hinting module
    #[arg(long, value_name = "KO")]
    pub module: PathBuf,
    /// page_hinting_alloc_bench.ko for --kernel
    #[arg(long, value_name = "KO")]
    pub bench: PathBuf,
    /// page_hinting_alloc_bench.ko for --base
    #[arg(long, value_name = "KO")]
    pub base_bench: PathBuf,
    /// plugin/count.c, compiled for this QEMU
    #[arg(long, value_name = "FILE")]
    pub plugin: PathBuf,
    /// LLVM's objdump
    #[arg(long, value_name = "PROGRAM", default_value = "llvm-objdump")]
    pub objdump: PathBuf,
    /// Directory of the installed selftests, which has the programs that load a guest
    #[arg(long, value_name = "DIR", default_value = "out/selftests")]
    pub selftests: PathBuf,
    /// What scripts/bench-tools.sh makes: cyclictest, and an archive with a compiler
    #[arg(long, value_name = "DIR", default_value = "out/bench-tools")]
    pub tools: PathBuf,
    /// QEMU to run
    #[arg(long, value_name = "PROGRAM", default_value = "qemu-system-x86_64")]
    pub qemu: PathBuf,
    /// Static busybox to put into the guests
    #[arg(long, value_name = "FILE", default_value = "/bin/busybox")]
    pub busybox: PathBuf,
    /// Boots of each configuration in the parts "instructions" and "counted" [default: 3, quick 1]
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=100))]
    pub boots: Option<u32>,
    /// Configurations that these are to run, separated by commas, if not all
    #[arg(long, value_name = "CONFIG", value_delimiter = ',', value_parser = Config::parse)]
    pub configs: Vec<Config>,
    /// The simulator, for the part "model"
    #[arg(long, value_name = "PROGRAM", default_value = "out/cargo/release/sim")]
    pub sim: PathBuf,
    /// Parts to run, separated by commas; "all" is all but "orders", "model", "counted" and "turns"
    #[arg(
        long,
        value_name = "PART",
        value_delimiter = ',',
        default_value = "all",
        value_parser = PossibleValuesParser::new(bench::names())
    )]
    pub what: Vec<String>,
    /// A short run: fewer cases and rounds
    #[arg(long)]
    pub quick: bool,
    /// Longest time for each of a guest's steps, in seconds
    #[arg(long, value_name = "S", default_value_t = 300, value_parser = value_parser!(u64).range(1..=3600))]
    pub timeout: u64,
    /// Directory for result.json, the report, its pictures and the guests' logs
    #[arg(long, value_name = "DIR", default_value = "out/bench")]
    pub out: PathBuf,
}

impl BenchArgs {
    /// Longest time for each of a guest's steps.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout)
    }

    /// What a guest with this kernel and so many CPUs is made of.
    pub fn guest(&self, kernel: &Path, smp: u32) -> GuestArgs {
        GuestArgs {
            kernel: kernel.to_owned(),
            qemu: self.qemu.clone(),
            busybox: self.busybox.clone(),
            smp,
        }
    }

    /// Checks what the parser cannot.
    pub fn validate(&self) -> Result<()> {
        self.guest(&self.kernel, 1).validate()?;
        readable("--vmlinux", &self.vmlinux)?;
        readable("--base", &self.base)?;
        readable("--base-vmlinux", &self.base_vmlinux)?;
        readable("--module", &self.module)?;
        readable("--bench", &self.bench)?;
        readable("--base-bench", &self.base_bench)?;
        readable("--plugin", &self.plugin)?;
        for program in ["memhog", "fragment", "churn"] {
            readable("--selftests", &self.selftests.join(program))?;
        }
        Ok(())
    }
}

#[derive(Debug, Args)]
pub struct ShellArgs {
    #[command(flatten)]
    pub guest: GuestArgs,
    /// The page_hinting module
    #[arg(long, value_name = "KO")]
    pub module: PathBuf,
    /// Directory of the installed selftests, if it is there
    #[arg(long, value_name = "DIR", default_value = "out/selftests")]
    pub selftests: PathBuf,
    /// Guest memory in MiB
    #[arg(long, value_name = "MIB", default_value_t = 4096, value_parser = value_parser!(u64).range(512..=1 << 20))]
    pub mem: u64,
    /// Directory for guest.log
    #[arg(long, value_name = "DIR", default_value = "out/shell")]
    pub out: PathBuf,
}

impl ShellArgs {
    /// Checks what the parser cannot.
    pub fn validate(&self) -> Result<()> {
        self.guest.validate()?;
        readable("--module", &self.module)
    }
}

impl GuestArgs {
    fn validate(&self) -> Result<()> {
        readable("--kernel", &self.kernel)?;
        readable("--busybox", &self.busybox)
            .context("a static busybox is needed: apt-get install busybox-static")
    }
}

/// The name of a test point: the guest's shell gets it as it is.
fn point(name: &str) -> Result<String, String> {
    let is_good = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || !name.chars().all(is_good) {
        return Err("a point is named by letters, digits and underscores".to_owned());
    }
    Ok(name.to_owned())
}

fn readable(what: &str, path: &Path) -> Result<()> {
    let file = File::open(path).with_context(|| format!("{what}: {}", path.display()))?;
    let is_file = file.metadata().is_ok_and(|m| m.is_file());
    ensure!(is_file, "{what}: {}: not a file", path.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    fn demo(line: &str) -> DemoArgs {
        match parse(line).unwrap().command {
            Command::Demo(args) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn demo_defaults() {
        let args = demo("lab demo --kernel k --module m");
        assert_eq!((args.mem, args.touch, args.guest.smp), (4096, 2048, 2));
        assert_eq!(args.window(), Duration::from_secs(10));
        assert_eq!(args.out, Path::new("out/demo"));
    }

    #[test]
    fn upstream_needs_no_module_and_watches_longer() {
        let args = demo("lab demo --kernel k --upstream");
        assert_eq!(args.window(), Duration::from_secs(40));
        let args = demo("lab demo --kernel k --upstream --window 5");
        assert_eq!(args.window(), Duration::from_secs(5));
    }

    #[test]
    fn missing_and_bad_values_are_refused() {
        let kind = |line: &str| parse(line).unwrap_err().kind();
        assert_eq!(
            kind("lab demo --kernel k"),
            ErrorKind::MissingRequiredArgument
        );
        assert_eq!(
            kind("lab demo --module m"),
            ErrorKind::MissingRequiredArgument
        );
        for bad in [
            "--mem 0",
            "--mem 4G",
            "--touch 15",
            "--smp 0",
            "--smp 65",
            "--window 0",
            "--timeout x",
        ] {
            let line = format!("lab demo --kernel k --module m {bad}");
            assert!(
                matches!(kind(&line), ErrorKind::ValueValidation),
                "{bad}: {:?}",
                kind(&line)
            );
        }
    }

    #[test]
    fn more_than_fits_is_refused_before_files_are_looked_at() {
        let error = demo("lab demo --kernel k --module m --mem 2048 --touch 2048")
            .validate()
            .unwrap_err();
        assert!(error.to_string().contains("does not fit"), "{error:#}");
    }

    #[test]
    fn a_missing_kernel_is_named() {
        let error = demo("lab demo --kernel /nonexistent/bzImage --module m")
            .validate()
            .unwrap_err();
        assert!(
            format!("{error:#}").contains("--kernel: /nonexistent/bzImage"),
            "{error:#}"
        );
    }

    #[test]
    fn a_part_that_there_is_not_is_told_first() {
        let error = parse("lab bench --what burst,brust --quick").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidValue);
        let text = error.to_string();
        assert!(text.contains("brust") && text.contains("churn"), "{text}");
        let error = parse("lab bench --what burst,churn").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::MissingRequiredArgument);
    }

    #[test]
    fn scenarios_are_separated_by_commas() {
        let line = "lab test --kernel k --module m --selftests s --scenario balloon,kunit";
        match parse(line).unwrap().command {
            Command::Test(args) => assert_eq!(args.scenario, ["balloon", "kunit"]),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_point_is_a_word_to_the_shell() {
        let line = "lab test --kernel k --module m --selftests s --only a.sh --last unload_10";
        match parse(line).unwrap().command {
            Command::Test(args) => {
                assert_eq!(args.only.as_deref(), Some("a.sh"));
                assert_eq!(args.last.as_deref(), Some("unload_10"));
            }
            other => panic!("{other:?}"),
        }
        for bad in ["", "a;b", "$x", "a.sh"] {
            assert!(point(bad).is_err(), "{bad}");
        }
    }
}
