// SPDX-License-Identifier: GPL-2.0

//! From a series of samples to when how much memory was back.

use std::time::Duration;

/// One look at the guest's memory from the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// When the look was over, since the start of the sampling: what it shows is
    /// no younger.
    pub at: Duration,
    /// Resident part of the guest-RAM mapping in KiB.
    pub ram_kb: u64,
    /// Resident memory of the whole QEMU process in KiB.
    pub process_kb: u64,
}

/// What was to come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Burst {
    /// When the memory was free, since the start of the sampling.
    pub freed: Duration,
    /// Guest RAM that was resident before the memory was touched, in KiB.
    pub before_kb: u64,
    /// The most that was resident before it was freed, in KiB.
    pub peak_kb: u64,
    /// Memory touched, in KiB.
    pub touched_kb: u64,
}

impl Burst {
    /// The memory that must leave the mapping for it all to be back, in KiB: what
    /// was touched, or what the mapping grew by if that is more.
    pub fn owed_kb(&self) -> u64 {
        self.touched_kb
            .max(self.peak_kb.saturating_sub(self.before_kb))
    }

    /// KiB that had left the mapping at this sample.
    fn left_kb(&self, sample: &Sample) -> u64 {
        self.peak_kb.saturating_sub(sample.ram_kb)
    }

    /// How much of the memory had left the mapping at this sample, in percent.
    pub fn back_percent(&self, sample: &Sample) -> f64 {
        self.left_kb(sample) as f64 * 100.0 / self.owed_kb() as f64
    }

    fn is_back(&self, sample: &Sample, percent: u32) -> bool {
        self.left_kb(sample) * 100 >= self.owed_kb() * u64::from(percent)
    }

    /// Seconds from the free until `percent` of the memory had left the mapping,
    /// not to come back until the end of the series; `None` if it never did.
    ///
    /// Memory that was back before the guest had said that all was freed counts
    /// as 0.
    pub fn returned_s(&self, samples: &[Sample], percent: u32) -> Option<f64> {
        samples
            .iter()
            .rev()
            .take_while(|sample| self.is_back(sample, percent))
            .last()
            .map(|sample| sample.at.saturating_sub(self.freed).as_secs_f64())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Samples of "milliseconds KiB" lines.
    fn series(text: &str) -> Vec<Sample> {
        let number = |word: Option<&str>| word.unwrap().parse::<u64>().unwrap();
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| {
                let mut words = line.split_whitespace();
                let at = Duration::from_millis(number(words.next()));
                let ram_kb = number(words.next());
                let process_kb = number(words.next());
                Sample {
                    at,
                    ram_kb,
                    process_kb,
                }
            })
            .collect()
    }

    fn burst(freed_ms: u64, before_kb: u64, peak_kb: u64, touched_kb: u64) -> Burst {
        Burst {
            freed: Duration::from_millis(freed_ms),
            before_kb,
            peak_kb,
            touched_kb,
        }
    }

    fn table(burst: &Burst, samples: &[Sample]) -> [Option<f64>; 4] {
        [50, 90, 95, 99].map(|percent| burst.returned_s(samples, percent))
    }

    #[test]
    fn made_up_series() {
        let samples = series("0 1100 0\n10 1100 0\n20 600 0\n30 200 0\n40 150 0\n50 110 0");
        let burst = burst(10, 100, 1100, 1000);
        assert_eq!(
            table(&burst, &samples),
            [Some(0.01), Some(0.02), Some(0.03), Some(0.04)]
        );
    }

    #[test]
    fn a_share_that_is_lost_again_counts_from_its_last_return() {
        let samples = series("0 1100 0\n10 100 0\n20 400 0\n30 100 0\n40 170 0");
        let burst = burst(0, 100, 1100, 1000);
        assert_eq!(
            table(&burst, &samples),
            [Some(0.01), Some(0.03), None, None]
        );
    }

    #[test]
    fn nothing_back_is_none() {
        let samples = series("0 1100 0\n10 1100 0\n20 1090 0");
        assert_eq!(table(&burst(0, 100, 1100, 1000), &samples), [None; 4]);
        assert_eq!(burst(0, 100, 1100, 1000).returned_s(&[], 50), None);
    }

    #[test]
    fn back_before_the_guest_said_so_is_0() {
        let samples = series("0 1100 0\n10 100 0\n20 100 0");
        assert_eq!(
            burst(20, 100, 1100, 1000).returned_s(&samples, 99),
            Some(0.0)
        );
    }

    #[test]
    fn memory_that_was_free_and_resident_before_does_not_flatter() {
        // The mapping grew by more than was touched: all of that is owed.
        assert_eq!(burst(0, 100, 1300, 1000).owed_kb(), 1200);
        // It grew by less, since what was touched was partly resident already.
        assert_eq!(burst(0, 400, 1100, 1000).owed_kb(), 1000);
    }

    #[test]
    fn a_recorded_run() {
        let samples = series(include_str!("../tests/data/upstream.txt"));
        let burst = burst(6990, 180_224, 2_277_376, 2_097_152);
        assert_eq!(table(&burst, &samples), [Some(6.498), None, None, None]);
        // 78 % of what was touched is 1635778 KiB.
        assert_eq!(burst.returned_s(&samples, 78), Some(10.531));
    }
}
