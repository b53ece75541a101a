// SPDX-License-Identifier: GPL-2.0

//! Starts, ends and outlives guests.
//!
//! Nothing of a guest stays behind: QMP and the virtio port are socket pairs, the
//! initramfs is a memory file, and QEMU is killed when the [`Guest`] is dropped, or
//! by the kernel when the lab itself dies.

use crate::cli::GuestArgs;
use crate::interrupt::{self, Interrupted};
use crate::port::{self, Event, Port, Silence};
use crate::rss::Probe;
use anyhow::{Context, Result, anyhow, bail, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid, getppid, setpgid};
use procfs::process::Process;
use qapi::{Qmp, Stream, qmp};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Oldest QEMU that the lab is tried with: Debian 12's.
const OLDEST: (u32, u32) = (7, 2);
/// Longest time for QEMU itself to answer, or to end. It answers "savevm" when all is on the disk,
/// which others may keep busy.
const QEMU_LIMIT: Duration = Duration::from_secs(120);
/// Longest time for a panic to be printed.
const PANIC_LIMIT: Duration = Duration::from_secs(10);
/// Longest time for a guest to be moved to another QEMU.
const MIGRATION_LIMIT: Duration = Duration::from_secs(180);
/// Begins an answer to what this host or its user cannot do, whatever the guest is like.
pub const NOT_HERE: &str = "not here";
/// Most lines of a guest's log that are shown when it failed.
const LOG_LINES: usize = 60;

/// What runs the guest's code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accel {
    Kvm,
    Tcg,
}

impl Accel {
    /// KVM where there is any, and why there is none otherwise.
    pub fn detect() -> (Self, &'static str) {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let opens = File::options()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .is_ok();
        Self::choose(&cpuinfo, opens)
    }

    fn choose(cpuinfo: &str, kvm_opens: bool) -> (Self, &'static str) {
        let has_flag = cpuinfo
            .lines()
            .find(|line| line.starts_with("flags"))
            .is_some_and(|line| {
                line.split_whitespace()
                    .any(|flag| flag == "vmx" || flag == "svm")
            });
        if !has_flag {
            (Accel::Tcg, "the CPU shows neither vmx nor svm")
        } else if !kvm_opens {
            (Accel::Tcg, "/dev/kvm cannot be opened")
        } else {
            (Accel::Kvm, "the CPU can, and /dev/kvm opens")
        }
    }

    /// Its name in results.
    pub fn name(self) -> &'static str {
        match self {
            Accel::Kvm => "kvm",
            Accel::Tcg => "tcg",
        }
    }

    fn arguments(self, threads: Threads) -> [&'static str; 4] {
        // Without erms and fsrm, which TCG executes a byte at a time: Linux then clears
        // pages by words, eight times as fast.
        const TCG_CPU: &str = "max,erms=off,fsrm=off";
        match (self, threads) {
            (Accel::Kvm, _) => ["-accel", "kvm", "-cpu", "host"],
            (Accel::Tcg, Threads::Multi) => ["-accel", "tcg,thread=multi", "-cpu", TCG_CPU],
            (Accel::Tcg, Threads::Single) => ["-accel", "tcg,thread=single", "-cpu", TCG_CPU],
        }
    }
}

/// How TCG runs the guest's CPUs: each in a thread of its own, or by turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Threads {
    Multi,
    Single,
}

impl Threads {
    /// Up to QEMU 8.0, threads may execute code of a guest after it was patched, and
    /// the guest dies with "Oops: int3". Each load and unload of the module patches
    /// its static key: harmless once, but not some hundred times under load. Later versions
    /// do so rarely; tests then run once more.
    fn choose(version: (u32, u32), patches_code: bool) -> Self {
        const FIXED: (u32, u32) = (8, 1);
        if patches_code && version < FIXED {
            Threads::Single
        } else {
            Threads::Multi
        }
    }
}

/// What the guest's memory is made of on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostPages {
    /// Of huge pages, as far as the host has any and may use them.
    Transparent,
    /// Of pages of the base size alone.
    Small,
    /// Of huge pages from the host's pool (hugetlbfs), where what is discarded goes to
    /// as well.
    Pool,
}

/// What the guest's console is connected with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Console {
    /// The log alone.
    Log,
    /// The terminal, and the log.
    Terminal,
}

/// What a guest has beside memory, processors and devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hardware {
    /// NUMA nodes, by their memory in MiB; one node if empty.
    pub nodes: &'static [u64],
    /// Memory in MiB that may be plugged in while the guest runs.
    pub hotplug_mib: u64,
    /// Size in MiB of a virtio-mem device, "vm0", 0 for none. All of it is plugged in at boot.
    pub virtio_mem_mib: u64,
    /// Size in MiB of a disk that another process serves by vhost-user, 0 for none. The
    /// guest's memory is shared with it then.
    pub vhost_user_mib: u64,
    /// What the guests that a test has started beside its own take of the host, in MiB.
    pub beside_mib: u64,
    /// Size in MiB of an empty disk, 0 for none. It is the first one.
    pub disk_mib: u64,
    /// Whether the lab talks with the guest over a serial port instead of a virtio
    /// port. Linux 7.3's virtio_console asks for the state of its ports before it can
    /// receive the answer when it comes back from sleep, and then waits for it.
    pub serial: bool,
    /// Whether there are disks, read only, with the kernel and the initramfs.
    pub boot_disks: bool,
    /// Whether QEMU has an image to save the guest's state in (`savevm`).
    pub snapshots: bool,
    /// Whether QEMU's memory is locked: it cannot discard any of it then, as with devices
    /// of the host that are handed through to the guest.
    pub locked: bool,
    /// More arguments of QEMU.
    pub args: &'static [&'static str],
}

impl Hardware {
    /// Nothing more.
    pub const PLAIN: Self = Hardware {
        nodes: &[],
        hotplug_mib: 0,
        virtio_mem_mib: 0,
        vhost_user_mib: 0,
        beside_mib: 0,
        disk_mib: 0,
        serial: false,
        boot_disks: false,
        snapshots: false,
        locked: false,
        args: &[],
    };

    /// A clock that an instruction advances by a nanosecond, and nothing else does:
    /// the guest's TSC counts instructions, and idle time takes none.
    pub const COUNTING: Self = Hardware {
        args: &["-icount", "shift=0,sleep=off"],
        ..Self::PLAIN
    };

    fn counts(&self) -> bool {
        self.args.contains(&"-icount")
    }

    /// Why this host cannot give a guest of `mib` MiB that.
    pub fn missing(&self, mib: u64) -> Option<String> {
        /// Of include/uapi/linux/capability.h.
        const CAP_IPC_LOCK: u64 = 1 << 14;
        // QEMU's own, and what TCG translates, is locked as well.
        let bytes = (mib + 2048) << 20;
        let may = Process::myself().and_then(|process| process.status());
        let may = may.is_ok_and(|status| status.capeff & CAP_IPC_LOCK != 0);
        let limit = getrlimit(Resource::RLIMIT_MEMLOCK).map_or(0, |(limit, _)| limit);
        (self.locked && !may && limit < bytes).then(|| {
            format!(
                "memory that is locked needs root, or ulimit -l {}",
                bytes >> 10
            )
        })
    }
}

/// How to start a guest.
pub struct Config<'a> {
    pub args: &'a GuestArgs,
    /// Memory; a guest with nodes has theirs.
    pub mem_mib: u64,
    pub hardware: Hardware,
    /// The job in guest/ to run.
    pub job: &'a str,
    /// `-device` arguments beside those of the lab.
    pub devices: &'a [&'a str],
    /// Words for the kernel command line.
    pub kernel_args: &'a str,
    pub console: Console,
    pub host_pages: HostPages,
    /// Whether the module will be loaded and unloaded many times.
    pub patches_code: bool,
    /// The root file system.
    pub initramfs: &'a [u8],
    /// `cgroup.procs` of the control group of the host that QEMU is to run in.
    pub cgroup: Option<&'a File>,
    /// What the disk holds, if there is one.
    pub disk: Option<&'a File>,
    /// The image for the guest's state, if there is one.
    pub snapshots: Option<&'a File>,
    /// A plugin for TCG.
    pub plugin: Option<Plugin<'a>>,
    /// File for what the console says.
    pub log: PathBuf,
}

/// A plugin that QEMU loads to look at what it executes.
#[derive(Debug, Clone, Copy)]
pub struct Plugin<'a> {
    /// The shared object.
    pub program: &'a Path,
    /// Its arguments, each with a comma before it.
    pub arguments: &'a str,
    /// Where what it says goes.
    pub output: &'a Path,
}

/// The device that is hinted.
pub const BALLOON: &str = "virtio-balloon-pci,free-page-reporting=on";

/// A connection to QEMU's monitor.
pub type QmpStream = Stream<BufReader<UnixStream>, UnixStream>;

/// A running guest.
pub struct Guest {
    child: Child,
    qmp: Option<Qmp<QmpStream>>,
    pub port: Port,
    pub accel: Accel,
    /// How TCG runs the CPUs, if it does.
    pub threads: Threads,
    /// QEMU's version, such as "7.2.22".
    pub qemu_version: String,
    /// The sizes in KiB of what its memory consists of.
    ram_kb: Vec<u64>,
    /// What serves its disk, if another process does.
    storage: Option<Storage>,
    /// It said that it goes down and is to come up again.
    pub restarts: bool,
    /// It said that it sleeps and is to be woken, in which way.
    wakes: Option<Wake>,
    log: PathBuf,
    errors: PathBuf,
}

impl Guest {
    /// Starts QEMU; the guest boots.
    pub fn start(config: &Config<'_>) -> Result<Self> {
        create(&config.log)?;
        create(&errors_of(&config.log))?;
        Self::launch(config, Origin::Boots)
    }

    /// Starts QEMU.
    fn launch(config: &Config<'_>, origin: Origin) -> Result<Self> {
        let version = check_version(&config.args.qemu)?;
        // QEMU counts instructions only where the CPUs take turns.
        let counts = config.hardware.counts();
        let threads = match counts {
            true => Threads::Single,
            false => Threads::choose(version, config.patches_code),
        };
        let errors = errors_of(&config.log);
        let stderr = File::options().append(true).create(true).open(&errors)?;

        let (qmp, qmp_child) = UnixStream::pair()?;
        let (port, port_child) = UnixStream::pair()?;
        let initramfs = memory_file(config.initramfs)?;
        let clone = |file: Option<&File>| file.map(|file| file.try_clone()).transpose();
        let inherited = Inherited {
            qmp: qmp_child.into(),
            port: port_child.into(),
            initramfs,
            disk: clone(config.disk)?.map(Into::into),
            snapshots: clone(config.snapshots)?.map(Into::into),
        };
        let accel = match counts {
            true => Accel::Tcg,
            false => Accel::detect().0,
        };

        let storage = match config.hardware.vhost_user_mib {
            0 => None,
            mib => Some(Storage::start(mib)?),
        };
        let socket = storage.as_ref().map(Storage::socket);
        let mut command = Command::new(&config.args.qemu);
        command
            .args(arguments(
                config,
                origin,
                accel.arguments(threads),
                &clock(accel, threads),
                &inherited,
                socket.as_deref(),
            ))
            .stdin(match config.console {
                Console::Log => Stdio::null(),
                Console::Terminal => Stdio::inherit(),
            })
            .stdout(match config.console {
                Console::Log => Stdio::null(),
                Console::Terminal => Stdio::inherit(),
            })
            .stderr(stderr);
        prepare_child(&mut command, &inherited, config);
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {}", config.args.qemu.display()))?;
        drop(inherited);

        let mut guest = Guest {
            child,
            qmp: None,
            port: Port::new(port)?,
            accel,
            threads,
            qemu_version: String::new(),
            ram_kb: match config.hardware.virtio_mem_mib {
                0 => vec![config.mem_mib * 1024],
                more => vec![config.mem_mib * 1024, more * 1024],
            },
            storage,
            restarts: false,
            wakes: None,
            log: config.log.clone(),
            errors,
        };
        let handshake = guest.handshake(qmp);
        handshake.map_err(|error| guest.explain(error))?;
        Ok(guest)
    }

    fn handshake(&mut self, stream: UnixStream) -> Result<()> {
        wait_readable(&stream)?;
        stream.set_read_timeout(Some(QEMU_LIMIT))?;
        let mut reader = BufReader::new(stream.try_clone()?);
        let has_greeting = reader.fill_buf().is_ok_and(|bytes| !bytes.is_empty());
        ensure!(has_greeting, "QEMU refuses to start");
        let mut qmp = Qmp::new(Stream::new(reader, stream));
        let version = qmp.handshake()?.version.qemu;
        self.qemu_version = format!("{}.{}.{}", version.major, version.minor, version.micro);
        self.qmp = Some(qmp);
        Ok(())
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where the console's log is kept.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Says about an error of this guest what its log and QEMU say. A guest that
    /// hangs is made to panic first, so that its log tells what it was at.
    pub fn explain(&mut self, error: anyhow::Error) -> anyhow::Error {
        if error.is::<Interrupted>() {
            return error;
        }
        if let (Some(Silence::TimedOut), Some(qmp)) = (error.downcast_ref(), &mut self.qmp) {
            // Whether it still can is seen in the log.
            let _ = qmp.execute(&qmp::inject_nmi {});
            let _ = self.ended_within(PANIC_LIMIT);
        }
        let mut text = format!("{error:#}");
        if error.is::<Silence>() || self.qmp.is_none() {
            match self.ended_within(Duration::from_millis(500)) {
                Ok(Some(status)) => text += &format!(" (QEMU ended, {status})"),
                _ => text += " (QEMU is running)",
            }
        }
        let said = fs::read_to_string(&self.errors).unwrap_or_default();
        if !said.trim().is_empty() {
            text += &format!("\nQEMU said:\n{}", indent(said.trim_end()));
        }
        text += &format!("\n{}", log_extract(&self.log));
        anyhow!(text)
    }

    /// The guest's next line or event, with its requests served.
    pub fn next(&mut self, end: Instant) -> Result<Said> {
        /// How often a guest that sleeps is seen to.
        const PERIOD: Duration = Duration::from_millis(300);
        loop {
            let soon = match self.wakes {
                Some(_) => end.min(Instant::now() + PERIOD),
                None => end,
            };
            let line = match self.port.line(soon) {
                Ok(line) => line,
                Err(error) if error.is::<Silence>() && soon < end => {
                    ensure!(error.downcast_ref() == Some(&Silence::TimedOut), error);
                    if let Err(error) = self.wake() {
                        // It may go down just now, which the port tells when all is read.
                        ensure!(self.ended_within(QEMU_LIMIT)?.is_some(), error);
                    }
                    continue;
                }
                Err(error) => return Err(error),
            };
            match port::event(&line.text) {
                Some(Event::Host { request }) => match request.as_str() {
                    "migrate" => return Ok(Said::Migrate(Copying::Before)),
                    pair if pair.starts_with("pair ") => return Ok(Said::Pair(request)),
                    "migrate postcopy" => return Ok(Said::Migrate(Copying::After)),
                    _ => {
                        let answer = self.serve(&request);
                        self.answer(answer)?;
                    }
                },
                Some(event) => return Ok(Said::Event(event)),
                None if line.text.is_empty() => (),
                None => return Ok(Said::Line(line.text)),
            }
        }
    }

    /// Tells the guest what came of its request.
    pub fn answer(&mut self, answer: Result<String>) -> Result<()> {
        let answer = match answer {
            Ok(text) => format!("ok {text}"),
            Err(error) => format!("error {error:#}"),
        };
        self.port
            .send(answer.replace(['\r', '\n'], " ").trim_end())?;
        Ok(())
    }

    /// Does what the guest asks for. What is not the lab's own is a command of
    /// QEMU's human monitor.
    fn serve(&mut self, request: &str) -> Result<String> {
        match request {
            "restarts" => self.restarts = true,
            "wakeup-on-suspend" => self.wakes = Some(Wake::OnSuspend),
            "wakeup-by-lines" => self.wakes = Some(Wake::ByLines),
            "awake" => self.wakes = None,
            "resident" => return Ok(self.resident_kb()?.to_string()),
            "swap" => self.probe()?.swap_out()?,
            _ => match request.split_once(' ') {
                Some(("stop", seconds)) => self.stop(Duration::from_secs(seconds.parse()?))?,
                // To the guest it is the answer to when it was saved.
                Some(("loadvm", _)) => {
                    self.monitor(request)?;
                    return Ok("loaded".into());
                }
                _ => return self.monitor(request),
            },
        }
        Ok(String::new())
    }

    /// Looks at its memory, which is all of one node.
    fn probe(&self) -> Result<Probe> {
        Probe::of_parts(self.pid(), &self.ram_kb)
    }

    /// KiB of its memory that are resident.
    fn resident_kb(&self) -> Result<u64> {
        match self.storage {
            None => Ok(self.probe()?.look()?.0),
            Some(_) => shared_kb(self.pid()),
        }
    }

    /// Moves the guest, which goes on running, to another QEMU. It is the same one but for
    /// the process.
    pub fn migrate(&mut self, config: &Config<'_>, copying: Copying) -> Result<()> {
        /// How long the guest is left running while its memory is copied slowly.
        const SLOWLY: Duration = Duration::from_secs(5);
        let dir = tempfile::tempdir().context("cannot make a directory for a socket")?;
        let address = format!("unix:{}", dir.path().join("migration").display());
        let mut other = Self::launch(config, Origin::Moves)?;
        // One file serves both, and the one that goes must not take it along.
        let errors = std::mem::take(&mut other.errors);
        let postcopy = match copying {
            Copying::Before => "off",
            Copying::After => "on",
        };
        for qemu in [&mut other, &mut *self] {
            qemu.monitor(&format!("migrate_set_capability postcopy-ram {postcopy}"))
                .with_context(|| format!("{NOT_HERE}: postcopy-ram {postcopy}"))?;
        }
        other.monitor(&format!("migrate_incoming {address}"))?;
        self.monitor("migrate_set_parameter max-bandwidth 64M")?;
        self.monitor(&format!("migrate -d {address}"))?;

        let began = Instant::now();
        let mut is_slow = true;
        let mut is_postcopy = false;
        loop {
            interrupt::check()?;
            if let Some(status) = other.ended_within(Duration::ZERO)? {
                bail!("the QEMU that the guest was to be moved to ended, {status}");
            }
            let info = self.monitor("info migrate")?;
            is_postcopy |= info.contains("postcopy-active") || info.contains("postcopy ram:");
            match migration_status(&info) {
                "completed" => break,
                "failed" | "cancelled" => bail!("the migration failed: {info}"),
                "active" if is_slow && began.elapsed() > SLOWLY => {
                    is_slow = false;
                    if copying == Copying::After {
                        self.monitor("migrate_start_postcopy")?;
                        continue;
                    }
                    // However much the guest writes meanwhile.
                    self.monitor("migrate_set_parameter max-bandwidth 10G")?;
                    self.monitor("migrate_set_parameter downtime-limit 20000")?;
                }
                _ => (),
            }
            ensure!(
                began.elapsed() < MIGRATION_LIMIT,
                "the guest is not moved after {} s: {info}",
                MIGRATION_LIMIT.as_secs()
            );
            sleep(Duration::from_millis(50));
        }
        while !other.monitor("info status")?.contains("running") {
            interrupt::check()?;
            ensure!(
                began.elapsed() < MIGRATION_LIMIT,
                "the guest does not run where it was moved to"
            );
            sleep(Duration::from_millis(5));
        }
        ensure!(
            is_postcopy == (copying == Copying::After),
            "the guest was moved, but not in the way that was asked for"
        );
        other.restarts = self.restarts;
        other.wakes = self.wakes;
        other.errors = errors;
        let mut old = std::mem::replace(self, other);
        old.errors = PathBuf::new();
        old.quit()
    }

    /// Whether it runs: not after a migration that failed at its end.
    pub fn is_running(&mut self) -> bool {
        let status = self.monitor("info status");
        status.is_ok_and(|status| status.contains("running"))
    }

    /// Stops QEMU as a whole for a time.
    fn stop(&self, time: Duration) -> Result<()> {
        let pid = Pid::from_raw(self.pid().try_into()?);
        kill(pid, Signal::SIGSTOP)?;
        let slept = interrupt::sleep_until(Instant::now() + time);
        kill(pid, Signal::SIGCONT)?;
        Ok(slept?)
    }

    /// What the human monitor says to a command.
    pub fn monitor(&mut self, command: &str) -> Result<String> {
        let qmp = self.qmp.as_mut().context("QEMU has no monitor")?;
        let text = qmp.execute(&qmp::human_monitor_command {
            cpu_index: None,
            command_line: command.to_owned(),
        })?;
        let refused = ["Error", "unknown command", "invalid"];
        let text = text.trim();
        ensure!(!refused.iter().any(|word| text.starts_with(word)), "{text}");
        Ok(text.to_owned())
    }

    /// Wakes the guest, if it sleeps already.
    fn wake(&mut self) -> Result<()> {
        if self.wakes == Some(Wake::ByLines) {
            self.port.send("")?;
        } else if self.monitor("info status")?.contains("suspended") {
            self.wakes = None;
            self.monitor("system_wakeup")?;
        }
        Ok(())
    }

    /// After the guest went down: whether that was in good order.
    pub fn went_down(&mut self) -> Result<()> {
        let status = self
            .ended_within(QEMU_LIMIT)?
            .context("QEMU does not end")?;
        ensure!(status.success(), "QEMU ended, {status}");
        let log = fs::read(&self.log)?;
        match String::from_utf8_lossy(&log)
            .lines()
            .find(|line| is_complaint(line))
        {
            None => Ok(()),
            Some(line) => bail!("the kernel complained: {line}"),
        }
    }

    /// Waits for QEMU to end by itself.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        loop {
            interrupt::check()?;
            if let Some(status) = self.ended_within(interrupt::NOTICE)? {
                return Ok(status);
            }
        }
    }

    /// Ends the guest at once.
    pub fn quit(mut self) -> Result<()> {
        self.ask_to_quit();
        ensure!(
            self.ended_within(QEMU_LIMIT)?.is_some(),
            "QEMU does not end when told to; it has been killed"
        );
        Ok(())
    }

    fn ask_to_quit(&mut self) {
        if let Some(mut qmp) = self.qmp.take() {
            // QEMU may be gone already, which is as good.
            let _ = qmp.execute(&qmp::quit {});
        }
    }

    fn ended_within(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        let end = Instant::now() + limit;
        loop {
            let status = self.child.try_wait()?;
            if status.is_some() || Instant::now() >= end {
                return Ok(status);
            }
            sleep(Duration::from_millis(5));
        }
    }
}

/// How a guest that sleeps is woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wake {
    /// By QEMU, once the machine is suspended.
    OnSuspend,
    /// By empty lines, until it says that it is awake: QEMU does not know of a guest
    /// that merely idles, but the interrupt of its serial port wakes that.
    ByLines,
}

/// What comes from a guest.
#[derive(Debug)]
pub enum Said {
    Line(String),
    Event(Event),
    /// It asks for something of a pair of guests, and waits for an answer: see pair.rs.
    Pair(String),
    /// It asks to be moved to another QEMU, and waits for an answer.
    Migrate(Copying),
}

/// When a guest's memory is copied to where it is moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Copying {
    /// While it runs where it was.
    Before,
    /// While it runs there already ("postcopy"), from the time on when it has been running
    /// for a while as in [`Copying::Before`].
    After,
}

/// How a QEMU gets its guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Boots,
    /// From another QEMU.
    Moves,
}

/// The word of "info migrate" that says how far it is: "Migration status: active" up to
/// QEMU 10.0, "Status: active" later.
fn migration_status(info: &str) -> &str {
    let mut lines = info.lines().map(str::trim);
    lines
        .find_map(|line| {
            let (name, value) = line.split_once(':')?;
            (name.eq_ignore_ascii_case("status") || name == "Migration status").then_some(value)
        })
        .and_then(|value| value.split_whitespace().next())
        .unwrap_or("")
}

/// KiB of a guest's memory that the host holds, where it is a memory file.
fn shared_kb(pid: u32) -> Result<u64> {
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let path = entry?.path();
        let link = fs::read_link(&path).unwrap_or_default();
        if link.to_string_lossy().starts_with("/memfd:memory-backend") {
            // A block of stat(2) has 512 bytes.
            return Ok(fs::metadata(&path)?.blocks() / 2);
        }
    }
    bail!("process {pid} has no memory file that is the guest's memory")
}

/// A process that serves a disk of random contents by vhost-user. It ends with the guest.
struct Storage {
    child: Child,
    dir: tempfile::TempDir,
}

impl Storage {
    fn start(mib: u64) -> Result<Self> {
        let dir = tempfile::tempdir().context("cannot make a directory for a socket")?;
        let image = dir.path().join("disk");
        let random = File::open("/dev/urandom")?;
        std::io::copy(&mut random.take(mib << 20), &mut File::create(&image)?)?;
        let socket = dir.path().join("socket");
        let mut command = Command::new("qemu-storage-daemon");
        command.arg("--blockdev").arg(format!(
            "driver=file,node-name=disk,read-only=on,filename={}",
            image.display()
        ));
        command.arg("--export").arg(format!(
            "type=vhost-user-blk,id=disk,node-name=disk,addr.type=unix,addr.path={}",
            socket.display()
        ));
        command.stdin(Stdio::null());
        // SAFETY: a system call alone.
        unsafe { command.pre_exec(|| Ok(prctl::set_pdeathsig(Signal::SIGKILL)?)) };
        let child = command
            .spawn()
            .context("qemu-storage-daemon does not run; apt-get install qemu-utils")?;
        let mut storage = Storage { child, dir };
        let end = Instant::now() + QEMU_LIMIT;
        while !socket.exists() {
            let ended = storage.child.try_wait()?;
            ensure!(ended.is_none(), "qemu-storage-daemon ended");
            ensure!(Instant::now() < end, "qemu-storage-daemon makes no socket");
            sleep(Duration::from_millis(5));
        }
        Ok(storage)
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Files that QEMU inherits.
struct Inherited {
    qmp: OwnedFd,
    port: OwnedFd,
    initramfs: OwnedFd,
    disk: Option<OwnedFd>,
    snapshots: Option<OwnedFd>,
}

impl Inherited {
    fn all(&self) -> Vec<RawFd> {
        [&self.qmp, &self.port, &self.initramfs]
            .into_iter()
            .chain(&self.disk)
            .chain(&self.snapshots)
            .map(AsRawFd::as_raw_fd)
            .collect()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // A process that has ended, or was waited for, is not signalled.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if fs::metadata(&self.errors).is_ok_and(|m| m.len() == 0) {
            let _ = fs::remove_file(&self.errors);
        }
    }
}

/// With five levels of page tables Linux 7.3 with KASAN now and then complains while
/// it boots: identify_cpu() clears the capabilities by which pgtable_l5_enabled()
/// knows, and an interrupt that comes then finds all addresses wild.
const FOUR_LEVELS: &str = "no5lvl";

/// On a host that is busy a guest may not see its timer tick within the moment that
/// Linux gives it for that, and panics ("IO-APIC + timer doesn't work").
const NO_TIMER_CHECK: &str = "no_timer_check";

/// How the guest is to use its TSC, which under TCG is the host's.
///
/// On a host that is busy Linux measures it wrongly now and then, and runs 38 times too fast. And
/// the watchdog of Linux 7.3 for the TSC waits for another CPU with a limit by the clock: while
/// that is jiffies, and the other CPU is in stop_machine(), the limit never comes, and a guest
/// with two CPUs hangs as it boots, or as a CPU goes.
fn clock(accel: Accel, threads: Threads) -> String {
    match (accel, threads) {
        (Accel::Tcg, Threads::Multi) => tsc_khz(),
        // With one thread the clock may count instructions.
        _ => None,
    }
    .map_or_else(String::new, |khz| {
        format!("tsc_early_khz={khz} tsc=nowatchdog")
    })
}

/// The frequency of the host's TSC, if it has one.
#[cfg(target_arch = "x86_64")]
fn tsc_khz() -> Option<u64> {
    static KHZ: OnceLock<Option<u64>> = OnceLock::new();
    // SAFETY: Each x86-64 CPU has the instruction.
    let tsc = || unsafe { std::arch::x86_64::_rdtsc() };
    // The time and the TSC then: of several tries that which was not interrupted.
    let read = || {
        let tries = (0..100).map(|_| (tsc(), Instant::now(), tsc()));
        let (before, now, _) =
            tries.min_by_key(|(before, _, after)| after.wrapping_sub(*before))?;
        Some((now, before))
    };
    let measure = || {
        let (begin, first) = read()?;
        sleep(Duration::from_millis(100));
        let (end, last) = read()?;
        let ticks = u128::from(last.checked_sub(first)?) * 1_000_000;
        u64::try_from(ticks / (end - begin).as_nanos()).ok()
    };
    *KHZ.get_or_init(measure)
}

#[cfg(not(target_arch = "x86_64"))]
fn tsc_khz() -> Option<u64> {
    None
}

/// Every complaint of the kernel ends the guest, and so does an NMI, which is what
/// a guest gets that hangs; a panic shows what each task was doing.
const PANIC: &str = "panic_on_warn=1 panic=-1 oops=panic unknown_nmi_panic panic_sys_info=tasks";

fn arguments(
    config: &Config<'_>,
    origin: Origin,
    accel: [&str; 4],
    clock: &str,
    inherited: &Inherited,
    storage: Option<&Path>,
) -> Vec<OsString> {
    let qmp = inherited.qmp.as_raw_fd();
    let port = inherited.port.as_raw_fd();
    let initramfs = format!("/proc/self/fd/{}", inherited.initramfs.as_raw_fd());
    let log = config.log.display().to_string().replace(',', ",,");
    let hardware = &config.hardware;
    let mem = match hardware.nodes {
        [] => config.mem_mib,
        nodes => nodes.iter().sum(),
    };
    let mut list: Vec<OsString> = Vec::new();
    let mut add = |words: &[&str]| list.extend(words.iter().map(OsString::from));

    add(&accel);
    add(&[
        "-no-user-config",
        "-nodefaults",
        "-display",
        "none",
        "-no-reboot",
    ]);
    let backend = match config.host_pages {
        _ if storage.is_some() => "memory-backend-memfd,share=on",
        HostPages::Transparent | HostPages::Small => "memory-backend-ram",
        HostPages::Pool => "memory-backend-memfd,hugetlb=on,hugetlbsize=2M",
    };
    if hardware.nodes.is_empty() {
        add(&["-machine", "q35,memory-backend=ram"]);
        add(&["-object", &format!("{backend},id=ram,size={mem}M")]);
    } else {
        add(&["-machine", "q35"]);
    }
    for (node, mib) in hardware.nodes.iter().enumerate() {
        add(&["-object", &format!("{backend},id=ram{node},size={mib}M")]);
        add(&["-numa", &format!("node,nodeid={node},memdev=ram{node}")]);
    }
    match hardware.hotplug_mib + hardware.virtio_mem_mib {
        0 => add(&["-m", &format!("{mem}M")]),
        more => add(&["-m", &format!("{mem}M,slots=4,maxmem={}M", mem + more)]),
    }
    add(&["-smp", &config.args.smp.to_string()]);
    add(&["-chardev", &format!("socket,id=qmp,fd={qmp}")]);
    add(&["-mon", "chardev=qmp,mode=control"]);
    add(&["-chardev", &format!("socket,id=port,fd={port}")]);
    match config.console {
        Console::Log => add(&["-chardev", &format!("file,id=console,path={log},append=on")]),
        Console::Terminal => add(&[
            "-chardev",
            &format!("stdio,id=console,mux=on,signal=off,logfile={log}"),
            "-mon",
            "chardev=console",
        ]),
    }
    add(&["-serial", "chardev:console"]);
    let mut port_word = "";
    if hardware.serial {
        add(&["-serial", "chardev:port"]);
        port_word = "lab.port=ttyS1";
    } else {
        add(&["-device", "virtio-serial-pci"]);
        let device = format!("virtserialport,chardev=port,name={}", port::NAME);
        add(&["-device", &device]);
    }
    for device in config.devices {
        add(&["-device", device]);
    }
    if let Some(disk) = &inherited.disk {
        let file = format!("/proc/self/fd/{}", disk.as_raw_fd());
        add(&["-drive", &format!("if=none,id=disk,format=raw,file={file}")]);
        add(&["-device", "virtio-blk-pci,drive=disk"]);
    }
    if let Some(image) = &inherited.snapshots {
        let file = format!("/proc/self/fd/{}", image.as_raw_fd());
        add(&[
            "-drive",
            &format!("if=none,id=snapshots,format=qcow2,file={file}"),
        ]);
    }
    if hardware.virtio_mem_mib > 0 {
        let mib = hardware.virtio_mem_mib;
        add(&[
            "-object",
            &format!("memory-backend-ram,id=vmem,size={mib}M"),
            "-device",
            &format!("virtio-mem-pci,id=vm0,memdev=vmem,requested-size={mib}M"),
        ]);
    }
    if let Some(socket) = storage {
        let socket = socket.display().to_string().replace(',', ",,");
        add(&["-chardev", &format!("socket,id=storage,path={socket}")]);
        add(&["-device", "vhost-user-blk-pci,chardev=storage,num-queues=1"]);
    }
    if hardware.locked {
        add(&["-overcommit", "mem-lock=on"]);
    }
    if origin == Origin::Moves {
        add(&["-incoming", "defer"]);
    }
    if hardware.boot_disks {
        let kernel = config.args.kernel.display().to_string().replace(',', ",,");
        for (id, file) in [("kernel", &kernel), ("initramfs", &initramfs)] {
            add(&[
                "-drive",
                &format!("if=none,id={id},format=raw,readonly=on,file={file}"),
            ]);
            add(&["-device", &format!("virtio-blk-pci,drive={id},serial={id}")]);
        }
    }
    add(hardware.args);
    if let Some(plugin) = &config.plugin {
        // Else it would be taken for a name in the directories of libraries.
        let program = plugin.program.display().to_string().replace(',', ",,");
        add(&["-plugin", &format!("{program}{}", plugin.arguments)]);
        add(&["-d", "plugin", "-D", &plugin.output.display().to_string()]);
    }
    add(&["-initrd", &initramfs]);
    let append = format!(
        "console=ttyS0 log_buf_len=1M {PANIC} {FOUR_LEVELS} {NO_TIMER_CHECK} {clock} lab.job={} \
         {port_word} {}",
        config.job, config.kernel_args
    );
    add(&["-append", append.trim_end()]);
    list.push("-kernel".into());
    list.push(config.args.kernel.clone().into());
    list
}

/// Makes the child inherit these files and die with the lab.
fn prepare_child(command: &mut Command, inherited: &Inherited, config: &Config<'_>) {
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};

    let fds = inherited.all();
    let lab = getpid();
    let (console, host_pages) = (config.console, config.host_pages);
    let cgroup = config.cgroup.map(AsRawFd::as_raw_fd);
    let prepare = move || -> std::io::Result<()> {
        prctl::set_pdeathsig(Signal::SIGKILL)?;
        if let Some(fd) = cgroup {
            // SAFETY: the parent holds the file open until the child has been started.
            let procs = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
            // 0 stands for whoever writes it.
            nix::unistd::write(procs, b"0")?;
        }
        if getppid() != lab {
            return Err(std::io::ErrorKind::NotConnected.into());
        }
        // Ctrl-C is for the lab, which then ends the guest; but a guest on the
        // terminal has to stay in the group that may read it.
        if console == Console::Log {
            setpgid(Pid::from_raw(0), Pid::from_raw(0))?;
        }
        // QEMU inherits it, and its own madvise() does not count then.
        if host_pages == HostPages::Small {
            prctl::set_thp_disable(true)?;
        }
        for &fd in &fds {
            // SAFETY: the parent holds the file open until the child has been started.
            let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(fd) };
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        Ok(())
    };
    // SAFETY: `prepare` makes system calls alone, and allocates nothing.
    unsafe { command.pre_exec(prepare) };
}

/// What QEMU says its version is, if that is one which will do, such as "7.2.22".
pub fn version_of(qemu: &Path) -> Result<String> {
    check_version(qemu)?;
    let text = version_text(qemu)?;
    let word = text.split_whitespace().nth(3);
    Ok(word.unwrap_or_default().to_owned())
}

fn version_text(qemu: &Path) -> Result<String> {
    let output = Command::new(qemu).arg("--version").output();
    let output = output.with_context(|| {
        format!(
            "{} does not run; apt-get install qemu-system-x86",
            qemu.display()
        )
    })?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn check_version(qemu: &Path) -> Result<(u32, u32)> {
    let text = version_text(qemu)?;
    let (major, minor) = version(&text)
        .with_context(|| format!("{} --version says: {}", qemu.display(), text.trim()))?;
    ensure!(
        (major, minor) >= OLDEST,
        "{} is version {major}.{minor}, too old: {}.{} is needed; \
         Debian 12 and later have it as qemu-system-x86",
        qemu.display(),
        OLDEST.0,
        OLDEST.1
    );
    Ok((major, minor))
}

fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text
        .strip_prefix("QEMU emulator version ")?
        .split(|c: char| !c.is_ascii_digit())
        .map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn create(path: &Path) -> Result<File> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot make the directory {}", directory.display()))?;
    }
    File::create(path).with_context(|| format!("cannot write {}", path.display()))
}

/// Where what QEMU itself says is kept.
fn errors_of(log: &Path) -> PathBuf {
    log.with_extension("qemu.log")
}

fn memory_file(content: &[u8]) -> Result<OwnedFd> {
    let fd = memfd_create("initramfs", MFdFlags::MFD_CLOEXEC)?;
    let mut file = File::from(fd);
    file.write_all(content)
        .context("cannot hold the initramfs in memory")?;
    Ok(file.into())
}

fn wait_readable(stream: &UnixStream) -> Result<()> {
    let end = Instant::now() + QEMU_LIMIT;
    while Instant::now() < end {
        interrupt::check()?;
        let mut fds = [PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(interrupt::NOTICE)?;
        match poll(&mut fds, timeout) {
            Ok(0) | Err(nix::errno::Errno::EINTR) => (),
            Ok(_) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    bail!("QEMU does not answer on its monitor");
}

/// Of a log, indented, what follows the first complaint of the kernel, without the
/// list of tasks, or the end if there is none; and where the rest is.
pub fn log_extract(log: &Path) -> String {
    let text = fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).replace('\r', "");
    let lines: Vec<_> = text.lines().collect();
    let complaint = lines.iter().position(|line| is_complaint(line));
    let (what, shown) = match complaint {
        _ if lines.is_empty() => return format!("The guest's log {} is empty.", log.display()),
        Some(first) => {
            let rest = &lines[first..];
            let tasks = rest
                .iter()
                .position(|line| line.starts_with("task:") || line.contains("] task:"));
            let end = tasks.unwrap_or(rest.len()).min(LOG_LINES);
            ("What the kernel complains of in", &rest[..end])
        }
        None => {
            let first = lines.len().saturating_sub(LOG_LINES);
            ("The end of", &lines[first..])
        }
    };
    format!(
        "{what} the guest's log, kept in {}:\n{}",
        log.display(),
        indent(&shown.join("\n"))
    )
}

/// Whether this is a line of a kernel log that no good kernel prints.
pub fn is_complaint(line: &str) -> bool {
    const SIGNS: [&str; 18] = [
        "WARNING:",
        "BUG:",
        "Oops",
        "Kernel panic",
        "KASAN:",
        "UBSAN:",
        "possible circular locking",
        "possible recursive locking",
        "inconsistent lock state",
        "invalid wait context",
        "suspicious RCU usage",
        "scheduling while atomic",
        "blocked for more than",
        "soft lockup",
        "rcu: INFO:",
        "Bad page",
        "unreferenced object",
        "Call Trace:",
    ];
    SIGNS.iter().any(|sign| line.contains(sign))
}

fn indent(text: &str) -> String {
    format!("    {}", text.replace('\n', "\n    "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VMX: &str = "processor\t: 0\nflags\t\t: fpu vme vmx ssse3\nbugs\t\t: svm\n";

    #[test]
    fn kvm_takes_a_flag_and_a_device_that_opens() {
        assert_eq!(Accel::choose(VMX, true).0, Accel::Kvm);
        assert_eq!(Accel::choose(VMX, false).0, Accel::Tcg);
        assert_eq!(
            Accel::choose(&VMX.replace("vmx", "svm"), true).0,
            Accel::Kvm
        );
        assert_eq!(
            Accel::choose(&VMX.replace("vmx", "vmx_x"), true).0,
            Accel::Tcg
        );
        assert_eq!(Accel::choose("", true).0, Accel::Tcg);
    }

    #[test]
    fn an_old_tcg_takes_turns_where_code_is_patched() {
        assert_eq!(Threads::choose((7, 2), true), Threads::Single);
        assert_eq!(Threads::choose((8, 0), true), Threads::Single);
        assert_eq!(Threads::choose((7, 2), false), Threads::Multi);
        assert_eq!(Threads::choose((8, 1), true), Threads::Multi);
        assert_eq!(Threads::choose((10, 0), true), Threads::Multi);
    }

    #[test]
    fn how_far_a_migration_is_is_read() {
        let old = "globals:\r\nstore-global-state: on\r\nMigration status: active\r\ntotal time: 5 ms\r\n";
        assert_eq!(migration_status(old), "active");
        assert_eq!(
            migration_status("Status: \t\tcompleted\r\nTime (ms): 5"),
            "completed"
        );
        let failed = "Migration status: failed (Unable to write to socket: Broken pipe)";
        assert_eq!(migration_status(failed), "failed");
        assert_eq!(migration_status(""), "");
    }

    #[test]
    fn versions_are_read() {
        let debian = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)\nCopyright";
        assert_eq!(version(debian), Some((7, 2)));
        assert_eq!(version("QEMU emulator version 10.0.2"), Some((10, 0)));
        assert_eq!(version("something else 7.2"), None);
    }

    #[test]
    fn the_end_of_a_log_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("guest.log");
        assert!(log_extract(&log).contains("is empty"));
        let text: String = (0..100).map(|i| format!("line {i}\r\n")).collect();
        fs::write(&log, text).unwrap();
        let end = log_extract(&log);
        assert!(end.contains(&log.display().to_string()), "{end}");
        assert!(end.ends_with("    line 99"), "{end}");
        assert!(!end.contains("line 39\n") && end.contains("line 40\n"));
    }

    #[test]
    fn the_first_complaint_of_a_log_is_shown_rather_than_its_end() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("guest.log");
        let text: String = (0..200)
            .map(|i| match i {
                50 => "[ 1.0] BUG: KASAN: slab-out-of-bounds\n".to_owned(),
                90 => "[ 1.1] Kernel panic - not syncing\n".to_owned(),
                100 => "[ 1.2] task:init  state:S\n".to_owned(),
                _ => format!("line {i}\n"),
            })
            .collect();
        fs::write(&log, text).unwrap();
        let shown = log_extract(&log);
        assert!(!shown.contains("line 49\n") && shown.contains("KASAN"));
        assert!(shown.contains("Kernel panic") && shown.ends_with("    line 99"));
    }

    #[test]
    fn the_kernels_complaints_are_known() {
        for (line, expected) in [
            ("[    1.1] page_hinting: loaded, 1 zone", false),
            ("[    2.0] BUG: KASAN: slab-use-after-free in x", true),
            (
                "[    2.1] WARNING: possible circular locking dependency",
                true,
            ),
            (
                "[    2.2] INFO: task ksmd:33 blocked for more than 20 s",
                true,
            ),
            ("[    2.3] debug: all fine", false),
        ] {
            assert_eq!(is_complaint(line), expected, "{line}");
        }
    }
}
