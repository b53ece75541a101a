// SPDX-License-Identifier: GPL-2.0

//! The guest's memory, by amounts.
//!
//! The unit is the granule: what the host takes back and brings back as one, 2 MiB, which is also
//! the pageblock, the smallest block that is hinted by default. Of each zone it is known how much
//! is unhinted, out for hinting, Offline and in use, but not which; nothing that is modelled
//! depends on that. Allocations use what is unhinted first.

/// Size of a granule, in KiB and in pages of 4 KiB.
pub const GRANULE_KB: u64 = 2048;
pub const GRANULE_PAGES: u64 = GRANULE_KB / 4;

/// Granules of a number of MiB.
pub const fn mib(mib: u64) -> u64 {
    mib * 1024 / GRANULE_KB
}

/// A zone's memory, in granules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Zone {
    pub unhinted: u64,
    pub isolated: u64,
    pub offline: u64,
    pub used: u64,
}

impl Zone {
    pub fn free(&self) -> u64 {
        self.unhinted + self.isolated + self.offline
    }
}

/// All of a guest's memory, and what happened to it.
#[derive(Clone, Debug)]
pub struct Memory {
    /// The zone that allocations try first comes first.
    pub zones: Vec<Zone>,
    /// For each object of the workload, what it has of each zone.
    objects: Vec<Vec<u64>>,
    /// Granules of Offline memory that were allocated, ever.
    pub reused: u64,
    /// Granules that were acknowledged, ever.
    pub hinted: u64,
    /// The least that was unhinted since the last call of [`Self::low`], before any free.
    low: u64,
}

impl Memory {
    /// A guest whose memory was all hinted long ago.
    pub fn offline(zones: &[u64]) -> Self {
        Self {
            zones: zones
                .iter()
                .map(|offline| Zone {
                    offline: *offline,
                    ..Zone::default()
                })
                .collect(),
            objects: Vec::new(),
            reused: 0,
            hinted: 0,
            low: 0,
        }
    }

    /// The least that was unhinted since the last call, before any free.
    pub fn low(&mut self) -> u64 {
        let unhinted = self.unhinted();

        std::mem::replace(&mut self.low, unhinted)
    }

    fn sum(&self, of: impl Fn(&Zone) -> u64) -> u64 {
        self.zones.iter().map(of).sum()
    }

    pub fn unhinted(&self) -> u64 {
        self.sum(|zone| zone.unhinted)
    }

    pub fn offline_now(&self) -> u64 {
        self.sum(|zone| zone.offline)
    }

    pub fn free(&self) -> u64 {
        self.sum(Zone::free)
    }

    pub fn used(&self) -> u64 {
        self.sum(|zone| zone.used)
    }

    /// Gives granules to an object: of the first zone that has any, what is unhinted before what
    /// is Offline. Returns how many it got, and how many of them were Offline.
    pub fn allocate(&mut self, object: usize, granules: u64) -> (u64, u64) {
        if self.objects.len() <= object {
            self.objects.resize(object + 1, vec![0; self.zones.len()]);
        }
        let mut left = granules;
        let mut reused = 0;

        for (zone, held) in self.zones.iter_mut().zip(&mut self.objects[object]) {
            let warm = left.min(zone.unhinted);
            let cold = (left - warm).min(zone.offline);

            zone.unhinted -= warm;
            zone.offline -= cold;
            zone.used += warm + cold;
            *held += warm + cold;
            left -= warm + cold;
            reused += cold;
        }
        self.reused += reused;
        (granules - left, reused)
    }

    /// Takes granules back from an object, of the last zone first. Returns how many it had.
    pub fn release(&mut self, object: usize, granules: u64) -> u64 {
        let before = self.unhinted();
        let Some(held) = self.objects.get_mut(object) else {
            return 0;
        };
        let mut left = granules;

        for (zone, held) in self.zones.iter_mut().zip(held).rev() {
            let part = left.min(*held);

            *held -= part;
            zone.used -= part;
            zone.unhinted += part;
            left -= part;
        }
        self.low = self.low.min(before);
        granules - left
    }

    /// Takes unhinted granules of a zone out for hinting. Returns how many there were.
    pub fn isolate(&mut self, zone: usize, granules: u64) -> u64 {
        let zone = &mut self.zones[zone];
        let taken = granules.min(zone.unhinted);

        zone.unhinted -= taken;
        zone.isolated += taken;
        taken
    }

    /// The host has acknowledged what is out.
    pub fn acknowledge(&mut self) {
        for zone in &mut self.zones {
            self.hinted += zone.isolated;
            zone.offline += zone.isolated;
            zone.isolated = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unhinted_is_used_first_within_a_zone() {
        let mut memory = Memory::offline(&[10, 20]);

        assert_eq!(memory.allocate(0, 12), (12, 12));
        assert_eq!(memory.release(0, 5), 5);
        // Two of the second zone, then three of the first.
        assert_eq!(memory.zones[0].unhinted, 3);
        assert_eq!(memory.zones[1].unhinted, 2);
        assert_eq!(memory.allocate(1, 4), (4, 0));
        assert_eq!(memory.allocate(1, 2), (2, 1));
        assert_eq!(memory.free() + memory.used(), 30);
    }

    #[test]
    fn there_is_no_more_than_there_is() {
        let mut memory = Memory::offline(&[10]);

        assert_eq!(memory.allocate(0, 12), (10, 10));
        assert_eq!(memory.release(0, 12), 10);
        assert_eq!(memory.release(3, 1), 0);
        assert_eq!(memory.isolate(0, 20), 10);
        assert_eq!(memory.allocate(0, 1), (0, 0));
        memory.acknowledge();
        assert_eq!(memory.hinted, 10);
        assert_eq!(memory.offline_now(), 10);
    }
}
