// SPDX-License-Identifier: GPL-2.0

//! `lab test`: runs selftests in guests, and says what came out as KTAP.

use crate::cli::TestArgs;
use crate::initramfs::{self, Content};
use crate::interrupt::Interrupted;
use crate::ktap::{self, Outcome};
use crate::pair;
use crate::port::{Event, Silence};
use crate::qemu::{Accel, Config, Console, Guest, HostPages, Said, Threads, is_complaint};
use crate::scenario::{self, KUNIT, Lists, Scenario};
use crate::skips::Skips;
use crate::tally::{OUTPUT_LINES, Tally};
use crate::versions::Module;
use anyhow::{Context, Error, Result, ensure};
use procfs::{Current, Meminfo};
use std::cmp::Reverse;
use std::fs::{self, File};
use std::io::Write;
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// One kernel of the queue.
struct Variant {
    args: TestArgs,
    /// Whether this is the debug guest.
    is_debug: bool,
    lists: Lists,
    initramfs: Vec<u8>,
}

/// A scenario in a variant's guest.
struct Job<'a> {
    variant: &'a Variant,
    scenario: &'static Scenario,
}

/// Runs the scenarios; true if at least one test passed and none failed.
pub fn run(args: &TestArgs) -> Result<bool> {
    let variants: Vec<_> = args
        .each()
        .into_iter()
        .map(Variant::new)
        .collect::<Result<_>>()?;
    let mut queue = Vec::new();
    for variant in &variants {
        queue.extend(variant.queue()?);
    }
    fs::create_dir_all(&args.out)
        .with_context(|| format!("cannot make the directory {}", args.out.display()))?;

    let jobs = match args.jobs {
        Some(jobs) => jobs as usize,
        None => usual_jobs(queue.iter().map(Job::size_mib).max().unwrap_or(0)),
    };
    if jobs > 1 {
        queue.sort_by_key(|job| Reverse(job.cost()));
    }
    let tally = Tally::new(Skips::read(&args.selftests)?);
    println!("KTAP version 1");
    println!("# guests at a time: {jobs}");
    side_by_side(jobs, &queue, |job| job.run(&tally))?;
    let counts = tally.counts();
    print!("{}", counts.summary());
    Ok(counts.is_success())
}

impl Variant {
    fn new(args: TestArgs) -> Result<Self> {
        args.validate()?;
        let initramfs = initramfs::build(&Content {
            busybox: &args.guest.busybox,
            module: Some(&args.module),
            selftests: Some(&args.selftests),
        })?;
        Ok(Self {
            is_debug: Module::read(&args.module)?.has_kunit,
            lists: scenario::read_lists(&args.selftests)?,
            initramfs,
            args,
        })
    }

    fn queue(&self) -> Result<Vec<Job<'_>>> {
        let args = &self.args;
        let scenarios = scenario::select(&args.scenario, &args.skip, &self.lists, self.is_debug)?;
        let job = |scenario| Job {
            variant: self,
            scenario,
        };
        Ok(scenarios.into_iter().map(job).collect())
    }
}

impl Job<'_> {
    fn size_mib(&self) -> u64 {
        let variant = self.variant;
        self.scenario.size_mib(variant.args.mem, variant.is_debug)
    }

    /// About how many seconds it takes: the debug guest takes twice as long as others.
    fn cost(&self) -> u32 {
        match self.variant.is_debug {
            true => self.scenario.seconds,
            false => self.scenario.seconds / 2,
        }
    }

    fn run(&self, tally: &Tally) -> Result<()> {
        let Self { variant, scenario } = self;
        let args = &variant.args;
        let name = format!("{}/{}", args.name, scenario.name);
        let tests = match variant.lists.get(scenario.name) {
            _ if scenario.name == KUNIT => vec![KUNIT.to_owned()],
            Some(tests) => scenario::narrow(tests, args.only.as_deref()),
            None => Vec::new(),
        };
        if tests.is_empty() {
            let problem = match &args.only {
                Some(only) => format!(
                    "{only} is not one of its tests: {}",
                    variant
                        .lists
                        .get(scenario.name)
                        .map_or(String::new(), |tests| tests.join(", "))
                ),
                None => "no selftest is listed for this scenario".to_owned(),
            };
            tally.problem(&name, problem);
            return Ok(());
        }
        let mem_mib = scenario.mem_mib(args.mem, variant.is_debug);
        if let Some(reason) = scenario.hardware.missing(mem_mib) {
            tally.point(&name, &Outcome::Skip(reason), &[]);
            return Ok(());
        }
        let disk = match (&args.disk, scenario.hardware.disk_mib) {
            (Some(disk), _) => Some(File::open(disk).with_context(|| disk.display().to_string())?),
            (None, 0) => None,
            (None, mib) => Some(empty_file(&args.out, mib << 20)?),
        };
        let snapshots = match scenario.hardware.snapshots {
            false => None,
            true => Some(empty_image(&args.out)?),
        };
        let mut runner = Runner {
            args,
            scenario,
            is_debug: variant.is_debug,
            initramfs: &variant.initramfs,
            disk,
            snapshots,
            boots: 0,
        };
        runner.run(&tests, tally)
    }
}

/// How many guests of a size run at a time, if nobody says: three for two processors, as a test waits
/// for a third of its time, and as many as there is memory for. Limits of a container count.
fn usual_jobs(size_mib: u64) -> usize {
    let processors = thread::available_parallelism().map_or(1, |n| n.get());
    let available = Meminfo::current().ok().and_then(|info| info.mem_available);
    let mib = (available.unwrap_or(0) >> 20).min(container_mib().unwrap_or(u64::MAX));
    jobs_for(processors, mib, size_mib)
}

fn jobs_for(processors: usize, available_mib: u64, size_mib: u64) -> usize {
    let fit = available_mib / size_mib.max(1);
    usize::try_from(fit)
        .unwrap_or(usize::MAX)
        .clamp(1, (processors + processors / 2).max(1))
}

/// What the memory cgroups above this process leave it, if they limit it.
fn container_mib() -> Option<u64> {
    let own = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let number =
        |path: &Path| -> Option<u64> { fs::read_to_string(path).ok()?.trim().parse().ok() };
    Path::new("/sys/fs/cgroup")
        .join(path)
        .ancestors()
        .take_while(|group| group.starts_with("/sys/fs/cgroup"))
        .filter_map(|group| {
            let limit = number(&group.join("memory.max"))?;
            let used = number(&group.join("memory.current")).unwrap_or(0);
            Some(limit.saturating_sub(used) >> 20)
        })
        .min()
}

/// Does the job for each item, `jobs` of them at a time, begun in their order. After an
/// error no other is begun; it is returned when those that run have ended.
pub fn side_by_side<T: Sync>(
    jobs: usize,
    items: &[T],
    job: impl Fn(&T) -> Result<()> + Sync,
) -> Result<()> {
    let next = AtomicUsize::new(0);
    let work = || -> Result<()> {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            job(item).inspect_err(|_| next.store(items.len(), Ordering::Relaxed))?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs).map(|_| scope.spawn(work)).collect();
        let ended: Vec<_> = workers
            .into_iter()
            .map(|worker| worker.join().unwrap_or_else(|panic| resume_unwind(panic)))
            .collect();
        ended.into_iter().collect()
    })
}

/// What QEMU 10.0.2 said under TCG, once in many runs, when a device was unplugged while
/// a CPU ran: it is about its own table of memory regions, whatever the guest does.
const QEMUS_OWN: &str = "iotlb_to_section: Assertion";

/// What went wrong if it was not the guest that failed.
fn qemus_own(text: &str, accel: Accel) -> Option<&'static str> {
    if text.contains(QEMUS_OWN) {
        Some("an assertion of its own failed")
    } else if accel == Accel::Tcg && is_stale_breakpoint(text) {
        Some("it executed code as it was before the guest patched it")
    } else {
        None
    }
}

/// Whether the guest died at a breakpoint that is not in its code: the byte before the marked
/// one. Linux sets one while it patches code, and ends that only when no CPU can meet it any
/// more. QEMU up to 8.0 failed so often, see [`Threads`](crate::qemu::Threads); 10.0.2 did once
/// in some 350 loads and unloads on a busy host.
fn is_stale_breakpoint(text: &str) -> bool {
    let oops = text.split_once("Oops: int3: ").map(|(_, rest)| rest);
    let code = oops.and_then(|rest| rest.split_once(" Code: "));
    let before = code.and_then(|(_, rest)| rest.split_once('<'));

    before.is_some_and(|(bytes, _)| bytes.split_whitespace().last() != Some("cc"))
}

/// Runs one scenario.
struct Runner<'a> {
    args: &'a TestArgs,
    scenario: &'a Scenario,
    /// Whether this is the debug guest.
    is_debug: bool,
    initramfs: &'a [u8],
    disk: Option<File>,
    snapshots: Option<File>,
    /// How many guests have been booted.
    boots: u32,
}

impl Runner<'_> {
    /// All tests in one guest, or after a hang or crash the rest in a fresh one.
    fn run(&mut self, tests: &[String], tally: &Tally) -> Result<()> {
        let output = self.file("tap");
        let mut output =
            File::create(&output).with_context(|| format!("cannot write {}", output.display()))?;
        let mut guest = None;

        for test in tests {
            // The second time for what QEMU has done wrong by itself.
            for may_retry in [true, false] {
                let mut running = match guest.take() {
                    Some(guest) => guest,
                    None => match self.boot() {
                        Ok(guest) => guest,
                        Err(error) => {
                            let what = "the guest does not boot; no further test was run";
                            tally.problem(&self.name("boot"), failure(error.context(what))?);
                            return Ok(());
                        }
                    },
                };
                let began = Instant::now();
                let mut lines = Vec::new();
                let ended = self.run_test(&mut running, test, &mut lines);
                writeln!(output, "# {test}")?;
                for line in &lines {
                    writeln!(output, "{line}")?;
                }
                match ended {
                    Ok(status) => {
                        let report = ktap::judge(status, lines.iter().map(String::as_str));
                        tally.report(&self.name(test), &report);
                        println!("# {} took {:.1} s", self.name(test), seconds(began));
                        guest = Some(running);
                    }
                    Err(error) => {
                        let said = lines[lines.len().saturating_sub(OUTPUT_LINES)..].join("\n");
                        let error = running.explain(error);
                        let text = format!("It said:\n{said}\n{}", failure(error)?);
                        let qemus_own = qemus_own(&text, running.accel).filter(|_| may_retry);
                        if let Some(reason) = qemus_own {
                            println!(
                                "# {}: QEMU failed, {reason}; the test is run once more, in a \
                                 fresh guest",
                                self.name(test)
                            );
                            tally.repeat();
                            continue;
                        }
                        tally.problem(&self.name(test), text);
                    }
                }
                break;
            }
        }

        guest.map_or(Ok(()), |guest| self.finish(guest, tally))
    }

    /// Ends a guest that has run its last test.
    fn finish(&self, mut guest: Guest, tally: &Tally) -> Result<()> {
        match self.check_log(&mut guest) {
            Ok(complaints) if complaints.is_empty() => {
                tally.point(&self.name("kernel log"), &Outcome::Pass, &[]);
            }
            Ok(complaints) => {
                tally.point(&self.name("kernel log"), &Outcome::Fail, &complaints);
            }
            Err(error) => {
                let error = guest.explain(error);
                tally.problem(&self.name("kernel log"), failure(error)?);
            }
        }
        if self.args.coverage {
            match guest.port.run("gcov", self.args.timeout()) {
                Ok(counts) => fs::write(self.file("gcov"), counts.join("\n") + "\n")?,
                Err(error) => tally.problem(&self.name("coverage"), failure(error)?),
            }
        }
        guest.quit()
    }

    /// Starts a guest, which goes on booting.
    fn start(&mut self) -> Result<Guest> {
        self.boots += 1;
        Guest::start(&self.config())
    }

    /// The guest that was booted last.
    fn config(&self) -> Config<'_> {
        let log = match self.boots {
            1 => self.file("log"),
            boots => self.file(&format!("{boots}.log")),
        };
        Config {
            args: &self.args.guest,
            mem_mib: self.scenario.mem_mib(self.args.mem, self.is_debug),
            hardware: self.scenario.hardware,
            job: "agent",
            devices: self.scenario.devices,
            kernel_args: self.scenario.kernel_args,
            console: Console::Log,
            host_pages: HostPages::Transparent,
            patches_code: true,
            initramfs: self.initramfs,
            cgroup: None,
            disk: self.disk.as_ref(),
            snapshots: self.snapshots.as_ref(),
            plugin: None,
            log,
        }
    }

    fn boot(&mut self) -> Result<Guest> {
        let began = Instant::now();
        let mut guest = self.start()?;
        match guest.port.wait_ready(self.args.timeout()) {
            Ok((kernel, _)) => {
                println!(
                    "# {}: Linux {kernel} in QEMU {} ({}), up in {:.1} s, log in {}",
                    self.name("boot"),
                    guest.qemu_version,
                    match (guest.accel, guest.threads) {
                        (Accel::Tcg, Threads::Single) => "tcg, one thread",
                        (accel, _) => accel.name(),
                    },
                    seconds(began),
                    guest.log().display()
                );
                Ok(guest)
            }
            Err(error) => Err(guest.explain(error)),
        }
    }

    /// The test's status; its output is added to `lines`.
    fn run_test(&mut self, guest: &mut Guest, test: &str, lines: &mut Vec<String>) -> Result<i32> {
        let limit = self.args.timeout();
        let end = Instant::now() + limit;
        // A fresh guest that either resumes, and goes on with the test, or boots.
        let mut is_fresh = false;
        let mut pair = None;
        guest
            .port
            .send(&command(test, "", self.args.last.as_deref()))?;
        loop {
            let error = match guest.next(end) {
                Ok(Said::Line(line)) => {
                    lines.push(line);
                    continue;
                }
                Ok(Said::Event(Event::Done { status })) => return Ok(status),
                Ok(Said::Event(Event::Ready { .. })) if guest.restarts || is_fresh => {
                    guest.restarts = false;
                    is_fresh = false;
                    guest
                        .port
                        .send(&command(test, "again", self.args.last.as_deref()))?;
                    continue;
                }
                Ok(Said::Event(Event::Ready { .. })) => {
                    return Err(Error::msg("the guest booted again, unasked"));
                }
                Ok(Said::Event(_)) => continue,
                Ok(Said::Pair(request)) => {
                    guest.answer(pair::serve(&mut pair, &request, &|| self.config(), limit))?;
                    continue;
                }
                Ok(Said::Migrate(copying)) => {
                    let moved = guest.migrate(&self.config(), copying);
                    if !guest.is_running() {
                        moved?;
                        return Err(Error::msg("the guest stands still after it was moved"));
                    }
                    guest.answer(moved.map(|()| String::new()))?;
                    continue;
                }
                Err(error) => error,
            };
            match error.downcast_ref() {
                Some(Silence::Gone) if guest.restarts => {
                    guest.went_down()?;
                    *guest = self.start()?;
                    is_fresh = true;
                }
                Some(Silence::TimedOut) => {
                    let what = format!("it did not end within {} s", limit.as_secs());
                    return Err(error.context(what));
                }
                _ => return Err(error.context("it did not end")),
            }
        }
    }

    /// What the kernel complains of.
    fn check_log(&self, guest: &mut Guest) -> Result<Vec<String>> {
        let limit = self.args.timeout().min(Duration::from_secs(60));
        let (status, log) = guest.port.call("dmesg", limit)?;
        ensure!(status == 0 && !log.is_empty(), "dmesg failed: {log:?}");
        let (_, taint) = guest.port.call("cat /proc/sys/kernel/tainted", limit)?;
        let taint: u64 = taint.concat().trim().parse().context("bad taint")?;

        let mut found: Vec<_> = log.into_iter().filter(|line| is_complaint(line)).collect();
        let bad = taint & !ALLOWED_TAINT;
        if bad != 0 {
            found.push(format!(
                "the kernel is tainted: {taint}, of which {bad} is bad"
            ));
        }
        Ok(found)
    }

    fn name(&self, test: &str) -> String {
        format!("{}/{}/{test}", self.args.name, self.scenario.name)
    }

    fn file(&self, extension: &str) -> PathBuf {
        let name = format!("{}-{}.{extension}", self.args.name, self.scenario.name);
        self.args.out.join(name)
    }
}

/// What the guest's agent is to do for a test, or for its part after a restart. A test
/// leaves off after the point `last`, if it has it.
fn command(test: &str, part: &str, last: Option<&str>) -> String {
    if test == KUNIT {
        return format!("kunit {}", initramfs::MODULE);
    }
    let mut text = String::new();
    for name in [
        "PAGE_HINTING_SOAK",
        "PAGE_HINTING_SECONDS",
        "PAGE_HINTING_SEED",
        "PAGE_HINTING_WAIT",
    ] {
        // A number: it goes into a shell's line as it is.
        let number = std::env::var(name).ok();
        if let Some(number) = number.and_then(|number| number.parse::<u32>().ok()) {
            text += &format!("export {name}={number}; ");
        }
    }
    if let Some(last) = last {
        text += &format!("export PAGE_HINTING_LAST={last}; ");
    }
    text += &format!("selftest {test} {part}");
    text.trim_end().to_owned()
}

/// A file of this size that is gone when it is closed, and holds no block yet.
fn empty_file(directory: &Path, size: u64) -> Result<File> {
    let file = tempfile::tempfile_in(directory)
        .and_then(|file| file.set_len(size).map(|()| file))
        .with_context(|| format!("cannot write in {}", directory.display()))?;
    Ok(file)
}

/// An image of QEMU's that can hold a guest's state, and is gone when it is closed.
fn empty_image(directory: &Path) -> Result<File> {
    let file = tempfile::NamedTempFile::new_in(directory)
        .with_context(|| format!("cannot write in {}", directory.display()))?;
    let made = Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2"])
        .arg(file.path())
        .arg("64M")
        .status()
        .context("qemu-img does not run; apt-get install qemu-utils")?;
    ensure!(made.success(), "qemu-img ended, {made}");
    // The name goes.
    Ok(file.into_file())
}

/// The text of an error that fails a test; an interrupt ends the run instead.
fn failure(error: Error) -> Result<String> {
    if error.chain().any(|cause| cause.is::<Interrupted>()) {
        return Err(Interrupted.into());
    }
    Ok(format!("{error:#}"))
}

fn seconds(began: Instant) -> f64 {
    began.elapsed().as_secs_f64()
}

/// Documentation/admin-guide/tainted-kernels.rst: an out-of-tree module (O) without a
/// signature (E), and an in-kernel test (N), of the module or of the kernel itself.
const ALLOWED_TAINT: u64 = 1 << 12 | 1 << 13 | 1 << 18;

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn what_qemu_does_wrong_is_told_from_what_a_guest_does() {
        let said = "QEMU said:\n  qemu-system-x86_64: system/physmem.c:2678: iotlb_to_section: \
                    Assertion `section_index < d->map.sections_nb' failed.";
        assert!(qemus_own(said, Accel::Tcg).is_some());
        assert_eq!(qemus_own("QEMU said:\n  a guest's error", Accel::Tcg), None);
    }

    #[test]
    fn a_breakpoint_that_is_there_is_the_guests_own() {
        let oops = |trap, byte| {
            format!(
                "    Oops: {trap}: 0000 [#1] SMP NOPTI\n    RIP: 0010:__free_one_page+0x19f/0x7b0\n    \
                 Code: 41 d3 e5 e9 ee 01 00 00 {byte} <1f> 44 00 00 4d\n    Code: 00 cc <48>"
            )
        };
        assert!(qemus_own(&oops("int3", "0f"), Accel::Tcg).is_some());
        assert_eq!(qemus_own(&oops("int3", "0f"), Accel::Kvm), None);
        assert_eq!(qemus_own(&oops("int3", "cc"), Accel::Tcg), None);
        assert_eq!(qemus_own(&oops("invalid opcode", "0f"), Accel::Tcg), None);
    }

    #[test]
    fn a_warnings_taint_is_not_allowed() {
        // "W: kernel issued warning", "D: kernel died", "L: soft lockup"
        for bit in [9, 7, 14] {
            assert_eq!(ALLOWED_TAINT >> bit & 1, 0, "{bit}");
        }
        assert_eq!(ALLOWED_TAINT, 4096 + 8192 + 262144);
    }

    #[test]
    fn all_jobs_are_done_so_many_at_a_time() {
        let items: Vec<usize> = (0..20).collect();
        for jobs in [1, 3, 30] {
            let (running, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
            let begun = Mutex::new(Vec::new());
            side_by_side(jobs, &items, |&item| {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                begun.lock().unwrap().push(item);
                thread::sleep(Duration::from_millis(2));
                running.fetch_sub(1, Ordering::SeqCst);
                Ok(())
            })
            .unwrap();
            let mut begun = begun.into_inner().unwrap();
            if jobs == 1 {
                assert_eq!(begun, items);
            }
            begun.sort_unstable();
            assert_eq!(begun, items);
            assert!(most.into_inner() <= jobs);
        }
    }

    /// Two jobs that wait for each other.
    #[test]
    fn two_jobs_run_together() {
        let barrier = std::sync::Barrier::new(2);
        side_by_side(2, &[(), ()], |()| {
            barrier.wait();
            Ok(())
        })
        .unwrap();
    }

    #[test]
    fn after_an_error_no_other_job_is_begun() {
        let begun = AtomicUsize::new(0);
        let error = side_by_side(1, &[0, 1, 2], |&item| {
            begun.fetch_add(1, Ordering::Relaxed);
            ensure!(item < 1, Interrupted);
            Ok(())
        })
        .unwrap_err();
        assert!(error.is::<Interrupted>());
        assert_eq!(begun.into_inner(), 2);
    }

    #[test]
    fn a_guest_needs_a_processor_and_memory() {
        assert_eq!(jobs_for(1, 1 << 20, 4096), 1);
        assert_eq!(jobs_for(2, 8191, 4096), 1);
        assert_eq!(jobs_for(2, 8192, 4096), 2);
        assert_eq!(jobs_for(2, 1 << 20, 4096), 3);
        assert_eq!(jobs_for(64, 1 << 20, 4096), 96);
        assert_eq!(jobs_for(64, 40_000, 4096), 9);
        assert_eq!(jobs_for(2, 0, 4096), 1);
    }

    #[test]
    fn the_agent_hears_of_the_last_point() {
        assert_eq!(command("a.sh", "", None), "selftest a.sh");
        assert_eq!(
            command("a.sh", "again", Some("b")),
            "export PAGE_HINTING_LAST=b; selftest a.sh again"
        );
    }

    #[test]
    fn an_interrupt_is_no_failure() {
        let error = Error::from(Interrupted).context("load.sh did not end");
        assert!(failure(error).unwrap_err().is::<Interrupted>());
        assert_eq!(failure(Error::msg("x")).unwrap(), "x");
    }
}
