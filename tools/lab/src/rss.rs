// SPDX-License-Identifier: GPL-2.0

//! Samples the memory of a QEMU process, the guest's RAM told apart from the rest.
//!
//! The process as a whole says little about the guest: under TCG alone its
//! translated code moves the sum by tens of MiB. The guest's RAM is one anonymous
//! mapping of exactly its size. How much of it is resident is asked of the
//! PAGEMAP_SCAN ioctl (Linux 6.7), which costs microseconds where the mapping
//! consists of huge pages, or else is read from smaps, which costs milliseconds.
//! Either way no more than half of the time is spent on looking.

use crate::port::Silence;
use crate::qemu::NOT_HERE;
use crate::returned::Sample;
use anyhow::{Context, Result, anyhow, bail, ensure};
use procfs::Current;
use procfs::process::{MMapPath, Process};
use serde::Serialize;
use std::fs::File;
use std::io::{Read, Seek};
use std::ops::Range;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How the resident part of the mapping is found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    PagemapScan,
    Smaps,
}

/// Looks at one process.
pub struct Probe {
    process: Process,
    ram: Vec<Range<u64>>,
    page_kb: u64,
    file: File,
    method: Method,
    smaps: String,
}

impl Probe {
    /// Finds the guest's RAM, of `ram_kb`, in the process.
    pub fn new(pid: u32, ram_kb: u64) -> Result<Self> {
        Self::of_parts(pid, &[ram_kb])
    }

    /// Finds the guest's RAM in the process, where it consists of parts of these sizes in KiB.
    pub fn of_parts(pid: u32, parts: &[u64]) -> Result<Self> {
        let mut probe = Self::with(pid, parts, Method::PagemapScan)?;
        if probe.look().is_err() {
            probe = Self::with(pid, parts, Method::Smaps)?;
        }
        Ok(probe)
    }

    fn with(pid: u32, parts: &[u64], method: Method) -> Result<Self> {
        let process = Process::new(pid.try_into()?)?;
        let maps = process.maps()?;
        let of_size = |ram_kb: u64| {
            maps.iter().filter(move |map| {
                let size = map.address.1 - map.address.0;
                map.pathname == MMapPath::Anonymous && size == ram_kb * 1024
            })
        };
        let mut ram = Vec::new();
        for &ram_kb in parts {
            let wanted = parts.iter().filter(|&&part| part == ram_kb).count();
            let found = of_size(ram_kb).count();
            ensure!(
                found > 0,
                "process {pid} has no anonymous mapping of {ram_kb} KiB, the guest's memory"
            );
            ensure!(
                found == wanted,
                "process {pid} has {found} mappings of {ram_kb} KiB, not {wanted}"
            );
            for map in of_size(ram_kb) {
                let range = map.address.0..map.address.1;
                if !ram.contains(&range) {
                    ram.push(range);
                }
            }
        }

        let file = match method {
            Method::PagemapScan => "pagemap",
            Method::Smaps => "smaps",
        };
        Ok(Probe {
            process,
            ram,
            page_kb: procfs::page_size() / 1024,
            file: File::open(format!("/proc/{pid}/{file}"))?,
            method,
            smaps: String::new(),
        })
    }

    /// How it looks.
    pub fn method(&self) -> Method {
        self.method
    }

    /// Has the host swap out the guest's RAM. Needs root, and a host with swap.
    pub fn swap_out(&self) -> Result<()> {
        use nix::{errno::Errno, libc};
        let has_swap = procfs::Meminfo::current()?.swap_total > 0;
        ensure!(has_swap, "{NOT_HERE}: the host has no swap");
        // SAFETY: makes a file descriptor of a number.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, self.process.pid(), 0) };
        let fd = Errno::result(fd).context("pidfd_open")?;
        // SAFETY: it has just been opened, and nobody else has it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd.try_into()?) };
        // Less than 2 GiB at a time, which is the most that the call takes.
        let starts = |ram: &Range<u64>| {
            let end = ram.end;
            ram.clone().step_by(1 << 30).map(move |start| (start, end))
        };
        for (start, end) in self.ram.iter().flat_map(starts) {
            let part = libc::iovec {
                iov_base: start as *mut _,
                iov_len: (end - start).min(1 << 30) as usize,
            };
            // SAFETY: `part` lives until it returns; the range is of the other process's
            // addresses, whose contents stay.
            let done = unsafe {
                libc::syscall(
                    libc::SYS_process_madvise,
                    fd.as_raw_fd(),
                    &part,
                    1,
                    libc::MADV_PAGEOUT,
                    0,
                )
            };
            match Errno::result(done) {
                Ok(_) => (),
                Err(Errno::EPERM) => bail!("{NOT_HERE}: it takes root to have QEMU swapped out"),
                Err(error) => return Err(error).context("MADV_PAGEOUT of the guest's memory"),
            }
        }
        Ok(())
    }

    /// KiB resident: of the guest's RAM, and of the whole process.
    pub fn look(&mut self) -> Result<(u64, u64)> {
        let process_kb = self.process.statm()?.resident * self.page_kb;
        let ram_kb = match self.method {
            Method::PagemapScan => {
                let mut bytes = 0;
                for range in &self.ram {
                    bytes += pagemap_scan::resident(&self.file, range)?;
                }
                bytes / 1024
            }
            Method::Smaps => {
                self.smaps.clear();
                self.file.rewind()?;
                self.file.read_to_string(&mut self.smaps)?;
                let parts = self.ram.iter().map(|range| smaps_rss(&self.smaps, range));
                parts
                    .sum::<Option<u64>>()
                    .ok_or_else(|| anyhow!("the guest's RAM is not in smaps any more"))?
            }
        };
        Ok((ram_kb, process_kb))
    }
}

/// The Rss of the mapping with this range, in KiB.
pub fn smaps_rss(smaps: &str, range: &Range<u64>) -> Option<u64> {
    let head = format!("{:x}-{:x} ", range.start, range.end);
    let mut lines = smaps.lines().skip_while(|line| !line.starts_with(&head));
    lines.next()?;
    let rss = lines.find_map(|line| line.strip_prefix("Rss:"))?;
    rss.trim().strip_suffix("kB")?.trim().parse().ok()
}

mod pagemap_scan {
    //! include/uapi/linux/fs.h: struct pm_scan_arg.

    use super::*;

    #[repr(C)]
    #[derive(Default)]
    struct Arg {
        size: u64,
        flags: u64,
        start: u64,
        end: u64,
        walk_end: u64,
        vec: u64,
        vec_len: u64,
        max_pages: u64,
        category_inverted: u64,
        category_mask: u64,
        category_anyof_mask: u64,
        return_mask: u64,
    }

    #[repr(C)]
    #[derive(Clone, Copy, Default)]
    struct Region {
        start: u64,
        end: u64,
        categories: u64,
    }

    const PAGE_IS_PRESENT: u64 = 1 << 3;
    const PAGE_IS_PFNZERO: u64 = 1 << 5;

    nix::ioctl_readwrite!(
        /// Fills `vec` with the ranges of pages that match; returns how many there are.
        scan, b'f', 16, Arg
    );

    /// Bytes in `range` that are resident, as Rss counts them: not the zero page.
    pub fn resident(pagemap: &File, range: &Range<u64>) -> Result<u64> {
        let mut regions = [Region::default(); 512];
        let mut bytes = 0;
        let mut start = range.start;
        while start < range.end {
            let mut arg = Arg {
                size: size_of::<Arg>() as u64,
                start,
                end: range.end,
                vec: regions.as_mut_ptr() as u64,
                vec_len: regions.len() as u64,
                category_inverted: PAGE_IS_PFNZERO,
                category_mask: PAGE_IS_PRESENT | PAGE_IS_PFNZERO,
                return_mask: PAGE_IS_PRESENT,
                ..Arg::default()
            };
            // SAFETY: `arg` and `regions` live until the call is over, and `size` and
            // `vec_len` tell the kernel how long they are.
            let found = unsafe { scan(pagemap.as_raw_fd(), &mut arg) }?;
            bytes += regions[..usize::try_from(found)?]
                .iter()
                .map(|region| region.end - region.start)
                .sum::<u64>();
            ensure!(arg.walk_end > start, "PAGEMAP_SCAN does not get on");
            start = arg.walk_end;
        }
        Ok(bytes)
    }
}

/// What the sampling was like, for who judges its result.
#[derive(Debug, Clone, Serialize)]
pub struct Quality {
    pub method: Method,
    /// Period asked for, in seconds.
    pub wanted_period_s: f64,
    /// Median and longest distance of two samples, in seconds, after the free.
    pub median_period_s: f64,
    pub max_period_s: f64,
    /// Median time of a look, in seconds.
    pub median_cost_s: f64,
}

/// Samples a process in a thread of its own until it is stopped.
pub struct Sampler {
    shared: Arc<Shared>,
    thread: JoinHandle<Result<()>>,
    start: Instant,
    method: Method,
}

struct Shared {
    stop: AtomicBool,
    period_us: AtomicU64,
    taken: Mutex<Vec<(Sample, Duration)>>,
}

/// Period around the burst.
pub const FAST: Duration = Duration::from_millis(2);
/// Period at other times.
pub const SLOW: Duration = Duration::from_millis(20);

impl Sampler {
    /// Starts at the slow period.
    pub fn start(mut probe: Probe) -> Result<Self> {
        let start = Instant::now();
        let method = probe.method();
        let shared = Arc::new(Shared {
            stop: AtomicBool::new(false),
            period_us: AtomicU64::new(SLOW.as_micros() as u64),
            taken: Mutex::new(Vec::new()),
        });
        let thread = {
            let shared = Arc::clone(&shared);
            thread::Builder::new()
                .name("sampler".into())
                .spawn(move || shared.run(&mut probe, start))
                .context("cannot start a thread")?
        };
        Ok(Sampler {
            shared,
            thread,
            start,
            method,
        })
    }

    /// Sets the period.
    pub fn set_period(&self, period: Duration) {
        let period = period.as_micros() as u64;
        self.shared.period_us.store(period, Ordering::Relaxed);
        self.thread.thread().unpark();
    }

    /// The time since the start at this instant.
    pub fn since_start(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.start)
    }

    /// A sample whose look began after this call did.
    pub fn fresh(&self) -> Result<Sample> {
        let now = self.start.elapsed();
        self.thread.thread().unpark();
        loop {
            let latest = self.taken().last().copied();
            match latest {
                Some((sample, cost)) if sample.at - cost >= now => return Ok(sample),
                _ => (),
            }
            if self.has_ended() {
                bail!(Silence::Gone);
            }
            thread::sleep(FAST);
        }
    }

    /// Whether the sampling has ended by itself, as it does when QEMU is gone.
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// The latest sample.
    pub fn latest(&self) -> Option<Sample> {
        self.taken().last().map(|(sample, _)| *sample)
    }

    /// Ends the sampling: all samples, and how good those after `freed` are.
    pub fn stop(self, freed: Duration) -> Result<(Vec<Sample>, Quality)> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
        let taken = std::mem::take(&mut *self.taken());
        self.thread
            .join()
            .map_err(|_| anyhow!("the sampler panicked"))??;

        let after: Vec<_> = taken.iter().filter(|(s, _)| s.at >= freed).collect();
        let median = |mut values: Vec<Duration>| {
            values.sort();
            values
                .get(values.len() / 2)
                .map_or(0.0, Duration::as_secs_f64)
        };
        let periods: Vec<_> = after.windows(2).map(|w| w[1].0.at - w[0].0.at).collect();
        let quality = Quality {
            method: self.method,
            wanted_period_s: FAST.as_secs_f64(),
            max_period_s: periods.iter().max().map_or(0.0, Duration::as_secs_f64),
            median_period_s: median(periods),
            median_cost_s: median(after.iter().map(|(_, cost)| *cost).collect()),
        };
        Ok((taken.into_iter().map(|(s, _)| s).collect(), quality))
    }

    fn taken(&self) -> std::sync::MutexGuard<'_, Vec<(Sample, Duration)>> {
        self.shared.taken.lock().expect("no holder panics")
    }
}

impl Shared {
    fn run(&self, probe: &mut Probe, start: Instant) -> Result<()> {
        let mut due = Instant::now();
        while !self.stop.load(Ordering::Relaxed) {
            let began = Instant::now();
            let (ram_kb, process_kb) = probe.look()?;
            let ended = Instant::now();
            let sample = Sample {
                at: ended - start,
                ram_kb,
                process_kb,
            };
            let cost = ended - began;
            self.taken
                .lock()
                .expect("no holder panics")
                .push((sample, cost));

            let period = Duration::from_micros(self.period_us.load(Ordering::Relaxed));
            due = (due + period).max(ended + cost);
            thread::park_timeout(due.saturating_duration_since(Instant::now()));
            due = due.min(Instant::now());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};
    use std::num::NonZeroUsize;

    const SMAPS: &str = include_str!("../tests/data/smaps.txt");

    #[test]
    fn rss_of_the_right_mapping() {
        assert_eq!(
            smaps_rss(SMAPS, &(0x7f1c1be00000..0x7f1d1be00000)),
            Some(2271232)
        );
        assert_eq!(smaps_rss(SMAPS, &(0x7f1c1be00000..0x7f1d1be01000)), None);
        assert_eq!(smaps_rss("", &(0..1)), None);
    }

    #[test]
    fn own_memory_is_seen_to_come_and_go() {
        // A size that nothing else has, next to nothing it could merge with.
        let kb = 64 * 1024 + 4;
        let len = NonZeroUsize::new(kb as usize * 1024).unwrap();
        let prot = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping of its own, which is taken away at the end.
        let map = unsafe {
            let map = mmap_anonymous(None, len, prot, MapFlags::MAP_PRIVATE).unwrap();
            madvise(map, len.get(), MmapAdvise::MADV_DONTFORK).unwrap();
            map
        };
        let pid = std::process::id();
        let mut probes = [
            Probe::new(pid, kb).unwrap(),
            Probe::with(pid, &[kb], Method::Smaps).unwrap(),
        ];
        let mut look = || probes.each_mut().map(|probe| probe.look().unwrap().0);
        // SAFETY: what is written and dropped lies in the mapping.
        let [empty, full, half] = unsafe {
            let empty = look();
            for page in 0..1000 {
                map.cast::<u8>().add(page * 4096).write_volatile(1);
            }
            let full = look();
            madvise(map, 500 * 4096, MmapAdvise::MADV_DONTNEED).unwrap();
            let half = look();
            munmap(map, len.get()).unwrap();
            [empty, full, half]
        };
        assert_eq!(empty, [0, 0]);
        for i in 0..2 {
            assert!((4000..=kb).contains(&full[i]), "{full:?}");
            assert!(full[i] - half[i] >= 1800, "{full:?} {half:?}");
        }
        assert_eq!((full[0], half[0]), (full[1], half[1]));
    }

    #[test]
    fn a_process_without_such_a_mapping_is_refused() {
        let error = Probe::new(std::process::id(), 123_456_788).err().unwrap();
        assert!(
            error.to_string().contains("no anonymous mapping"),
            "{error}"
        );
    }
}
