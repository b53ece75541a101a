// SPDX-License-Identifier: GPL-2.0

//! A guest that is measured: booted, brought into a configuration, and its CPU time
//! and its host's told apart.

use super::Ctx;
use super::config::Config;
use crate::initramfs::{self, Content};
use crate::interrupt;
use crate::qemu::{self, BALLOON, Console, Guest, Hardware, HostPages, Plugin};
use anyhow::{Context, Result, ensure};
use procfs::process::Process;
use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

/// How to boot a guest.
pub struct Boot<'a> {
    /// Whether its kernel has the series.
    pub patched: bool,
    pub mem_mib: u64,
    pub smp: u32,
    pub hardware: Hardware,
    /// `-device` of the balloon.
    pub balloon: &'a str,
    pub kernel_args: &'a str,
    pub plugin: Option<Plugin<'a>>,
    pub host_pages: HostPages,
    /// `cgroup.procs` of the control group of the host that QEMU is to run in.
    pub cgroup: Option<&'a File>,
    /// What the disk holds, if there is one.
    pub disk: Option<&'a File>,
    /// From [`initramfs`].
    pub initramfs: &'a [u8],
    /// Name of its log, without the suffix.
    pub name: &'a str,
}

impl<'a> Boot<'a> {
    /// One with two CPUs, the series and the balloon.
    pub fn plain(name: &'a str, initramfs: &'a [u8], mem_mib: u64) -> Self {
        Boot {
            patched: true,
            mem_mib,
            smp: 2,
            hardware: Hardware::PLAIN,
            balloon: BALLOON,
            kernel_args: "",
            plugin: None,
            host_pages: HostPages::Transparent,
            cgroup: None,
            disk: None,
            initramfs,
            name,
        }
    }
}

/// What goes into the guests: the module, and of the selftests' directory, or from
/// wherever it is, the programs named.
pub fn initramfs(ctx: &Ctx<'_>, programs: &[&str]) -> Result<Vec<u8>> {
    let dir = tempfile::tempdir()?;
    for program in programs {
        let from = ctx.args.selftests.join(program);
        let name = from.file_name().context("a program has no name")?;
        fs::copy(&from, dir.path().join(name)).with_context(|| from.display().to_string())?;
    }
    initramfs::build(&Content {
        busybox: &ctx.args.busybox,
        module: Some(&ctx.args.module),
        selftests: Some(dir.path()),
    })
}

/// A running guest that takes commands.
pub struct Subject {
    pub guest: Guest,
    pub limit: Duration,
}

impl Subject {
    /// Boots it.
    pub fn boot(ctx: &Ctx<'_>, boot: &Boot<'_>) -> Result<Self> {
        let kernel = match boot.patched {
            true => &ctx.args.kernel,
            false => &ctx.args.base,
        };
        let mut guest = Guest::start(&qemu::Config {
            args: &ctx.args.guest(kernel, boot.smp),
            mem_mib: boot.mem_mib,
            hardware: boot.hardware,
            job: "agent",
            devices: &[boot.balloon],
            kernel_args: boot.kernel_args,
            console: Console::Log,
            host_pages: boot.host_pages,
            patches_code: false,
            initramfs: boot.initramfs,
            cgroup: boot.cgroup,
            disk: boot.disk,
            snapshots: None,
            plugin: boot.plugin,
            log: log(ctx, boot.name),
        })?;
        let ready = guest.port.wait_ready(ctx.limit());
        let (kernel, _) = ready.map_err(|error| guest.explain(error))?;
        *ctx.guest_kernel.lock().expect("no holder panics") = kernel;
        Ok(Subject {
            guest,
            limit: ctx.limit(),
        })
    }

    /// Does something with it, and says more about an error.
    pub fn with<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        work(self).map_err(|error| self.guest.explain(error))
    }

    /// Runs a command that has to succeed.
    pub fn call(&mut self, command: &str) -> Result<Vec<String>> {
        self.guest.port.run(command, self.limit)
    }

    /// Puts a configuration in force, and checks that it is.
    pub fn enter(&mut self, config: Config) -> Result<()> {
        self.call(&config.put_in_force())
            .with_context(|| format!("{config} cannot be put in force"))?;
        if config == Config::PageHinting {
            let state = self.guest.port.state(self.limit)?;
            let status = state.status().context("the module shows no status")?;
            ensure!(
                status == "idle" || status == "hinting",
                "the module cannot hint: its status is {status}"
            );
        }
        Ok(())
    }

    /// Lets it be for a time.
    pub fn rest(&self, time: Duration) -> Result<()> {
        Ok(interrupt::sleep_until(Instant::now() + time)?)
    }

    /// CPU time of all of the guest, in its own time: /proc/stat, all that is not idle,
    /// in steps of 10 ms.
    pub fn busy(&mut self) -> Result<Duration> {
        parse_busy(&self.call("read -r line < /proc/stat; echo \"$line\"")?)
    }

    /// CPU time of those who may hint, to the nanosecond: the module's thread, and the
    /// kworkers, one of which runs page_reporting's work.
    pub fn hinters(&mut self) -> Result<Duration> {
        // A task that goes meanwhile has no file any more.
        parse_runtime(&self.call(
            "for task in $(awk '$2 ~ /^.(page_hinting|kworker)/ { print $1 }' /proc/[0-9]*/stat \
             2>&-); do grep -h '^se.sum_exec_runtime' /proc/$task/sched 2>&-; done; :",
        )?)
    }

    /// What the host has spent on it.
    pub fn host(&self) -> Result<HostCpu> {
        HostCpu::of(self.guest.pid())
    }
}

fn log(ctx: &Ctx<'_>, name: &str) -> std::path::PathBuf {
    let dir: &Path = &ctx.args.out.join("log");
    dir.join(format!("{name}.log"))
}

/// What a QEMU process has used.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct HostCpu {
    /// CPU time of all its threads, in user mode and in the host's kernel. Under TCG
    /// the guest's own work is in it, as user time.
    pub user_s: f64,
    pub system_s: f64,
    /// CPU time of its first thread, which serves the balloon and discards memory.
    pub main_s: f64,
    /// Page faults.
    pub faults: u64,
}

impl HostCpu {
    /// Of this process, so far.
    pub fn of(pid: u32) -> Result<Self> {
        let process = Process::new(pid.try_into()?)?;
        let stat = process.stat()?;
        let ticks = procfs::ticks_per_second() as f64;
        let main = process.task_main_thread()?.schedstat()?;
        Ok(HostCpu {
            user_s: stat.utime as f64 / ticks,
            system_s: stat.stime as f64 / ticks,
            main_s: main.sum_exec_runtime as f64 / 1e9,
            faults: stat.minflt + stat.majflt,
        })
    }

    /// What was used since.
    pub fn since(&self, earlier: &Self) -> Self {
        HostCpu {
            user_s: self.user_s - earlier.user_s,
            system_s: self.system_s - earlier.system_s,
            main_s: self.main_s - earlier.main_s,
            faults: self.faults - earlier.faults,
        }
    }

    /// In user mode and in the kernel.
    pub fn cpu_s(&self) -> f64 {
        self.user_s + self.system_s
    }
}

/// "cpu  user nice system idle iowait irq softirq steal guest guest_nice", in USER_HZ,
/// which is 100 on all machines there are.
fn parse_busy(output: &[String]) -> Result<Duration> {
    let line = output.first().context("/proc/stat is empty")?;
    let ticks: Option<Vec<u64>> = line
        .strip_prefix("cpu ")
        .map(|rest| rest.split_whitespace().map(str::parse).collect())
        .and_then(Result::ok);
    let ticks = ticks.filter(|ticks| ticks.len() >= 8);
    let ticks = ticks.with_context(|| format!("/proc/stat says: {line}"))?;
    let busy: u64 = [0, 1, 2, 5, 6].iter().map(|i: &usize| ticks[*i]).sum();
    Ok(Duration::from_millis(busy * 10))
}

/// Lines of "se.sum_exec_runtime : MILLISECONDS".
fn parse_runtime(output: &[String]) -> Result<Duration> {
    ensure!(!output.is_empty(), "/proc/PID/sched tells of no task");
    let mut sum = 0.0;
    for line in output {
        let value = line
            .split(':')
            .nth(1)
            .map(|word| word.trim().parse::<f64>());
        let value = value.and_then(Result::ok);
        sum += value.with_context(|| format!("/proc/PID/sched says: {line}"))?;
    }
    Ok(Duration::from_secs_f64(sum / 1e3))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn busy_is_all_but_idle_and_stolen() {
        let output = lines("cpu  10 2 30 4000 5 6 7 8 0 0");
        assert_eq!(parse_busy(&output).unwrap(), Duration::from_millis(550));
        assert!(parse_busy(&lines("cpu0 1")).is_err());
        assert!(parse_busy(&[]).is_err());
    }

    #[test]
    fn runtimes_are_added_up() {
        let line = "se.sum_exec_runtime                          :             1.250000";
        let output = lines(&format!("{line}\n{line}"));
        assert_eq!(parse_runtime(&output).unwrap(), Duration::from_micros(2500));
        assert!(parse_runtime(&[]).is_err());
        assert!(parse_runtime(&lines("no such file")).is_err());
    }

    #[test]
    fn own_time_is_seen_to_pass() {
        let before = HostCpu::of(std::process::id()).unwrap();
        let fresh = vec![1u8; 8 << 20];
        assert!(fresh.iter().map(|byte| u64::from(*byte)).sum::<u64>() > 0);
        let used = HostCpu::of(std::process::id()).unwrap().since(&before);
        assert!(used.faults > 0 && used.cpu_s() >= 0.0, "{used:?}");
    }
}
