// SPDX-License-Identifier: GPL-2.0

//! The zones of the guest, and what each has to hint and can spare.

use core::ptr::NonNull;

use kernel::{
    bindings::NR_PAGE_ORDERS,
    prelude::*, //
};

use crate::{
    ffi,
    policy::ZoneView,
    thread::InThread, //
};

/// The largest order of the buddy allocator.
pub(crate) const MAX_PAGE_ORDER: u32 = NR_PAGE_ORDERS - 1;

/// The order of a pageblock.
pub(crate) fn pageblock_order() -> u32 {
    // SAFETY: No requirements.
    unsafe { ffi::ph_pageblock_order() }
}

/// Puts what the per-CPU lists hold on the free lists. Sleeps.
pub(crate) fn drain() {
    // SAFETY: No requirements but process context.
    unsafe { ffi::page_hinting_drain() };
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
    // SAFETY: No requirements.
    unsafe { ffi::ph_untagged() as u64 }
}

/// Offline pages that the host brings back for allocations, since boot, of all zones. May wrap.
pub(crate) fn offline_used() -> u64 {
    // SAFETY: No requirements.
    unsafe { ffi::ph_offline_used() as u64 }
}

/// A zone with memory.
#[derive(Clone, Copy)]
pub(crate) struct Zone(NonNull<kernel::bindings::zone>);

impl Zone {
    /// All zones with memory, of all nodes.
    pub(crate) fn all() -> impl Iterator<Item = Zone> {
        core::iter::successors(Self::after(core::ptr::null_mut()), |zone| {
            Self::after(zone.0.as_ptr())
        })
    }

    fn after(zone: *mut kernel::bindings::zone) -> Option<Self> {
        // SAFETY: `zone` is null or a zone that this function returned, as required. Zones are
        // never freed.
        NonNull::new(unsafe { ffi::page_hinting_next_zone(zone) }).map(Self)
    }

    /// The zone, for the core.
    pub(crate) fn as_ptr(self) -> *mut kernel::bindings::zone {
        self.0.as_ptr()
    }

    /// The zone's name.
    pub(crate) fn name(self) -> &'static CStr {
        // SAFETY: The zone is valid, and its name is a string literal.
        unsafe { CStr::from_char_ptr(ffi::ph_zone_name(self.as_ptr())) }
    }

    /// The zone's node.
    pub(crate) fn node(self) -> i32 {
        // SAFETY: The zone is valid as zones are never freed.
        unsafe { ffi::ph_zone_node(self.as_ptr()) }
    }

    /// The zone's number, below [`slots`]. No other zone has it.
    pub(crate) fn slot(self) -> usize {
        // SAFETY: The zone is valid as zones are never freed.
        unsafe { ffi::ph_zone_slot(self.as_ptr()) as usize }
    }

    /// Pages that the buddy allocator manages.
    pub(crate) fn managed(self) -> u64 {
        // SAFETY: The zone is valid as zones are never freed.
        unsafe { ffi::ph_zone_managed(self.as_ptr()) as u64 }
    }

    /// Pages that are out for hinting.
    pub(crate) fn isolated(self) -> u64 {
        // SAFETY: The zone is valid as zones are never freed.
        unsafe { ffi::ph_zone_isolated(self.as_ptr()) as u64 }
    }

    /// Free pages that are reserved for atomic allocations, and are not hinted.
    pub(crate) fn reserved(self) -> u64 {
        // SAFETY: The zone is valid as zones are never freed.
        unsafe { ffi::ph_zone_reserved(self.as_ptr()) as u64 }
    }

    /// A snapshot of a free area's counters; [`None`] if there is no such order.
    pub(crate) fn area(self, order: u32) -> Option<Area> {
        let mut area = Area::default();

        if order > MAX_PAGE_ORDER {
            return None;
        }
        // SAFETY: The zone is valid, the order is in range, and `area` is valid for writes.
        unsafe { ffi::ph_zone_area(self.as_ptr(), order, &mut area) };
        Some(area)
    }

    /// Calls `f` with what the zone has and can spare, read under one hold of its lock. For the
    /// thread alone, as it begins anew the time that the lows are of.
    pub(crate) fn view<T>(self, _: &InThread, f: impl FnOnce(&ZoneView<'_>) -> T) -> T {
        let mut info = ffi::page_hinting_zone_info::default();

        // SAFETY: The zone is valid as zones are never freed, and `info` is valid for writes.
        unsafe { ffi::page_hinting_get_zone_info(self.as_ptr(), &mut info) };
        f(&ZoneView {
            free: info.free as u64,
            high_watermark: info.high_wmark as u64,
            reserve: info.reserve as u64,
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
pub(crate) use ffi::ph_area as Area;

impl Area {
    /// Free blocks that are not tagged Offline.
    pub(crate) fn unhinted(&self) -> u64 {
        self.nr_free.saturating_sub(self.nr_offline) as u64
    }
}
