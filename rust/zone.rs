// SPDX-License-Identifier: GPL-2.0

//! The zones of the guest, and what each has to hint and can spare.

use core::ptr::NonNull;

use kernel::{
    bindings::{
        self,
        MAX_NR_ZONES,
        NR_PAGE_ORDERS, //
    },
    prelude::*, //
};

use crate::{
    ffi,
    policy::ZoneView,
    thread::InThread, //
};

/// The largest order of the buddy allocator.
pub(crate) const MAX_PAGE_ORDER: u32 = NR_PAGE_ORDERS - 1;

/// Reads a field of a [`Zone`], a word that others may write at this time, as `READ_ONCE()` does.
macro_rules! read_field {
    ($zone:expr, $($field:tt)+) => {
        // SAFETY: The zone is valid, as zones are never freed, and so is a field of it. Its writers
        // are C, and the kernel assumes that a plain write of an aligned word does not tear: the
        // value is one that was written, of no certain moment.
        unsafe { core::ptr::addr_of!((*$zone.as_ptr()).$($field)+).read_volatile() }
    };
}

/// Puts what the per-CPU lists hold on the free lists. Sleeps.
pub(crate) fn drain() {
    // With no zone given, it would leave all to somebody who drains already.
    for zone in Zone::all() {
        // SAFETY: The zone is valid, in process context.
        unsafe { ffi::drain_all_pages(zone.as_ptr()) };
    }
}

/// How many zones there may be, those without memory included.
pub(crate) fn slots() -> usize {
    // SAFETY: No requirements.
    unsafe { ffi::ph_zone_slots() as usize }
}

/// Pages that are out for hinting, of all zones.
pub(crate) fn isolated() -> u64 {
    Zone::all().map(Zone::isolated).fold(0, u64::saturating_add)
}

/// Pages that were tagged Offline and merged with others that are not, since boot, of all zones. May
/// wrap.
pub(crate) fn untagged() -> u64 {
    Zone::even_empty()
        .map(|zone| read_field!(zone, nr_untagged))
        .fold(0, usize::wrapping_add) as u64
}

/// Offline pages that the host brings back for allocations, since boot, of all zones. May wrap.
pub(crate) fn offline_used() -> u64 {
    Zone::even_empty()
        .map(|zone| read_field!(zone, offline_used))
        .fold(0, usize::wrapping_add) as u64
}

/// A zone.
///
/// # Invariants
///
/// The zone is that of the slot.
#[derive(Clone, Copy)]
pub(crate) struct Zone {
    zone: NonNull<bindings::zone>,
    slot: usize,
}

impl Zone {
    /// All zones with memory, of all nodes.
    pub(crate) fn all() -> impl Iterator<Item = Zone> {
        Self::even_empty().filter(|zone| read_field!(zone, present_pages) != 0)
    }

    /// All zones, of offline nodes as well. What is summed up over these never shrinks.
    fn even_empty() -> impl Iterator<Item = Zone> {
        (0..slots()).filter_map(|slot| {
            // CAST: There are few slots.
            // SAFETY: The slot is one of those that there are.
            let zone = NonNull::new(unsafe { ffi::ph_zone(slot as u32) })?;

            // INVARIANT: By the call.
            Some(Self { zone, slot })
        })
    }

    /// The zone, for the core. It is valid for ever, as zones are never freed.
    pub(crate) fn as_ptr(self) -> *mut bindings::zone {
        self.zone.as_ptr()
    }

    /// The zone's name.
    pub(crate) fn name(self) -> &'static CStr {
        let name = read_field!(self, name);

        // SAFETY: The zone's name is a string literal.
        unsafe { CStr::from_char_ptr(name) }
    }

    /// The zone's node.
    pub(crate) fn node(self) -> usize {
        self.slot / MAX_NR_ZONES as usize
    }

    /// The zone's number, below [`slots`]. No other zone has it.
    pub(crate) fn slot(self) -> usize {
        self.slot
    }

    /// Pages that the buddy allocator manages.
    pub(crate) fn managed(self) -> u64 {
        read_field!(self, managed_pages.counter) as u64
    }

    /// Pages that are out for hinting.
    pub(crate) fn isolated(self) -> u64 {
        read_field!(self, nr_hinting) as u64
    }

    /// Free pages that are reserved for atomic allocations, and are not hinted.
    pub(crate) fn reserved(self) -> u64 {
        read_field!(self, nr_free_highatomic) as u64
    }

    /// A snapshot of a free area's counters; [`None`] if there is no such order.
    pub(crate) fn area(self, order: u32) -> Option<Area> {
        let order = order as usize;

        (order < NR_PAGE_ORDERS as usize).then(|| Area {
            nr_free: read_field!(self, free_area[order].nr_free),
            nr_offline: read_field!(self, free_area[order].nr_offline),
            nr_bound: read_field!(self, free_area[order].nr_bound),
        })
    }

    /// Calls `f` with what the zone has and can spare, read under one hold of its lock. For the
    /// thread alone, as it begins anew the time that the lows are of.
    pub(crate) fn view<T>(self, _: &InThread, f: impl FnOnce(&ZoneView<'_>) -> T) -> T {
        let mut info = ffi::page_hinting_zone_info::default();

        // SAFETY: The zone is valid as zones are never freed, and `info` is valid for writes.
        unsafe { ffi::page_hinting_get_zone_info(self.as_ptr(), &mut info) };
        f(&ZoneView {
            spare: info.spare as u64,
            managed: info.managed as u64,
            isolated: info.isolated as u64,
            largest_block: 1 << MAX_PAGE_ORDER,
            unhinted: &info.unhinted,
            eligible: info.eligible as u64,
            eligible_low: info.eligible_low as u64,
            unhinted_low: info.unhinted_low as u64,
            offline_used: info.offline_used as u64,
        })
    }
}

/// The counters of a free area, in blocks, each of another moment.
pub(crate) struct Area {
    /// Free blocks.
    pub(crate) nr_free: usize,
    /// Of these, those tagged Offline.
    pub(crate) nr_offline: usize,
    /// Taken by allocations since boot. May wrap.
    pub(crate) nr_bound: usize,
}

impl Area {
    /// Blocks freed since boot, less what left for any reason but an allocation. May wrap.
    pub(crate) fn nr_freed(&self) -> usize {
        self.nr_free.wrapping_add(self.nr_bound)
    }

    /// Free blocks that are not tagged Offline.
    pub(crate) fn unhinted(&self) -> u64 {
        self.nr_free.saturating_sub(self.nr_offline) as u64
    }
}
