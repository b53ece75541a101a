// SPDX-License-Identifier: GPL-2.0

//! The guest's memory, by amounts.
//!
//! The unit is the granule: what the host takes and provides as one, 2 MiB, which is also the
//! pageblock, the smallest block that is hinted by default. The model knows how much of each zone
//! is unhinted, isolated, Offline and in use, but not which blocks. Allocations use unhinted memory
//! first, except for the share that bypasses it.

/// Size of a granule, in KiB and in pages of 4 KiB.
pub const GRANULE_KB: u64 = 2048;
pub const GRANULE_PAGES: u64 = GRANULE_KB / 4;

/// Granules of a number of MiB.
pub const fn mib(mib: u64) -> u64 {
    mib * 1024 / GRANULE_KB
}

/// Granules times nanoseconds, in GiB times seconds.
pub fn gib_s(granules_ns: u128) -> f64 {
    granules_ns as f64 / 1e9 / mib(1024) as f64
}

/// A zone's memory, in granules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Zone {
    pub unhinted: u64,
    pub isolated: u64,
    pub offline: u64,
    pub used: u64,
    /// The least of free and of unhinted memory after an allocation since the last
    /// [`Memory::restart_lows`].
    pub free_low: u64,
    pub unhinted_low: u64,
    /// Offline granules that were allocated, ever.
    pub offline_used: u64,
}

impl Zone {
    pub fn free(&self) -> u64 {
        self.unhinted + self.isolated + self.offline
    }
}

/// All of a guest's memory, and what happened to it.
#[derive(Clone, Debug)]
pub struct Memory {
    /// In the kernel's order: the zone that allocations try first is the last.
    pub zones: Vec<Zone>,
    /// For each object of the load, how much of each zone it has.
    objects: Vec<Vec<u64>>,
    /// Granules that were acknowledged, ever.
    pub hinted: u64,
    /// The share of each allocation that takes Offline memory though other memory is free, in
    /// permille, and what of it is not made up for yet.
    bypass_permille: u64,
    bypass: u64,
}

impl Memory {
    /// A guest whose memory was all hinted long ago.
    pub fn offline(zones: &[u64], bypass_permille: u64) -> Self {
        let zone = |offline: &u64| Zone {
            offline: *offline,
            free_low: *offline,
            ..Zone::default()
        };

        Self {
            zones: zones.iter().map(zone).collect(),
            objects: Vec::new(),
            hinted: 0,
            bypass_permille,
            bypass: 0,
        }
    }

    fn sum(&self, of: impl Fn(&Zone) -> u64) -> u64 {
        self.zones.iter().map(of).sum()
    }

    pub fn offline_used(&self) -> u64 {
        self.sum(|zone| zone.offline_used)
    }

    pub fn isolated(&self) -> u64 {
        self.sum(|zone| zone.isolated)
    }

    /// Free granules that the host still has memory behind.
    pub fn kept(&self) -> u64 {
        self.sum(|zone| zone.unhinted + zone.isolated)
    }

    pub fn used(&self) -> u64 {
        self.sum(|zone| zone.used)
    }

    /// Starts the lows of a zone afresh.
    pub fn restart_lows(&mut self, zone: usize) {
        let zone = &mut self.zones[zone];

        zone.free_low = zone.free();
        zone.unhinted_low = zone.unhinted;
    }

    /// Gives granules to an object. Returns how many it got.
    pub fn allocate(&mut self, object: usize, granules: u64) -> u64 {
        if self.objects.len() <= object {
            self.objects.resize(object + 1, vec![0; self.zones.len()]);
        }
        let mut left = granules;
        self.bypass += granules * self.bypass_permille;

        for (zone, held) in self.zones.iter_mut().zip(&mut self.objects[object]).rev() {
            let bypass = (self.bypass / 1000).min(zone.offline).min(left);
            let warm = (left - bypass).min(zone.unhinted);
            let cold = (left - warm).min(zone.offline);

            self.bypass -= bypass * 1000;
            zone.unhinted -= warm;
            zone.offline -= cold;
            zone.offline_used += cold;
            zone.used += warm + cold;
            *held += warm + cold;
            left -= warm + cold;
            zone.free_low = zone.free_low.min(zone.free());
            zone.unhinted_low = zone.unhinted_low.min(zone.unhinted);
        }
        granules - left
    }

    /// Takes granules from an object, of the zone first that allocations try last.
    pub fn release(&mut self, object: usize, granules: u64) {
        let mut left = granules;

        for (zone, held) in self
            .zones
            .iter_mut()
            .zip(self.objects.get_mut(object).into_iter().flatten())
        {
            let part = left.min(*held);

            *held -= part;
            zone.used -= part;
            zone.unhinted += part;
            left -= part;
        }
    }

    /// Takes unhinted granules of a zone out for hinting. Returns how many there were.
    pub fn isolate(&mut self, zone: usize, granules: u64) -> u64 {
        let zone = &mut self.zones[zone];
        let taken = granules.min(zone.unhinted);

        zone.unhinted -= taken;
        zone.isolated += taken;
        taken
    }

    /// The host has acknowledged everything that is isolated.
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
    fn unhinted_memory_of_a_zone_is_used_first() {
        let mut memory = Memory::offline(&[20, 10], 0);

        assert_eq!(memory.allocate(0, 12), 12);
        memory.release(0, 5);
        // Two of the lower zone, then three of the upper.
        assert_eq!((memory.zones[0].unhinted, memory.zones[1].unhinted), (2, 3));
        assert_eq!((memory.allocate(1, 4), memory.offline_used()), (4, 12));
        assert_eq!((memory.allocate(1, 2), memory.offline_used()), (2, 13));
        assert_eq!(
            (memory.zones[0].free_low, memory.zones[0].unhinted_low),
            (17, 0)
        );
        memory.release(1, 6);
        memory.restart_lows(0);
        assert_eq!(
            (memory.zones[0].free_low, memory.zones[0].unhinted_low),
            (20, 3)
        );
        assert_eq!(memory.sum(Zone::free) + memory.used(), 30);
    }

    #[test]
    fn a_share_bypasses_unhinted_memory() {
        let mut memory = Memory::offline(&[2000], 50);

        memory.allocate(0, 1000);
        memory.release(0, 1000);
        for _ in 0..100 {
            memory.allocate(1, 7);
        }
        assert_eq!(memory.offline_used(), 1000 + 35);
    }

    #[test]
    fn a_guest_gets_no_more_than_it_has() {
        let mut memory = Memory::offline(&[10], 0);

        assert_eq!(memory.allocate(0, 12), 10);
        memory.release(0, 12);
        memory.release(3, 1);
        assert_eq!(memory.isolate(0, 20), 10);
        assert_eq!(memory.allocate(0, 1), 0);
        memory.acknowledge();
        assert_eq!((memory.hinted, memory.zones[0].offline), (10, 10));
    }
}
