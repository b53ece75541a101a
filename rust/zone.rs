// SPDX-License-Identifier: GPL-2.0

//! The zones of the guest, and what each has to hint and can spare.

use core::ptr::NonNull;

use kernel::{
    bindings::NR_PAGE_ORDERS,
    prelude::*, //
};

use crate::{
    ffi,
    policy::{
        Unhinted,
        ZoneRoom, //
    },
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

    /// A snapshot of a free area's counters; [`None`] if there is no such order.
    pub(crate) fn area(self, order: u32) -> Option<ffi::ph_area> {
        let mut area = ffi::ph_area {
            nr_free: 0,
            nr_offline: 0,
            nr_freed: 0,
            nr_bound: 0,
        };

        if order > MAX_PAGE_ORDER {
            return None;
        }
        // SAFETY: The zone is valid, the order is in range, and `area` is valid for writes.
        unsafe { ffi::ph_zone_area(self.as_ptr(), order, &mut area) };
        Some(area)
    }

    /// How low the unhinted blocks have been since this was called last.
    pub(crate) fn take_low(self) -> Low {
        let mut low = [0; NR_PAGE_ORDERS as usize];

        // SAFETY: The zone is valid, and `low` has room for all orders.
        unsafe { ffi::page_hinting_get_low(self.as_ptr(), low.as_mut_ptr()) };
        Low(low)
    }

    /// A snapshot of the zone's numbers.
    pub(crate) fn info(self) -> ZoneInfo {
        let mut info = ffi::page_hinting_zone_info {
            free: 0,
            high_wmark: 0,
            reserve: 0,
            managed: 0,
            isolated: 0,
            unhinted: [0; NR_PAGE_ORDERS as usize],
        };

        // SAFETY: The zone is valid as zones are never freed, and `info` is valid for writes.
        unsafe { ffi::page_hinting_get_zone_info(self.as_ptr(), &mut info) };
        ZoneInfo(info)
    }
}

/// The fewest unhinted blocks of each order that a zone had in a time.
pub(crate) struct Low([usize; NR_PAGE_ORDERS as usize]);

impl Low {
    /// Their size in pages.
    pub(crate) fn pages(&self, order: u32) -> u64 {
        let blocks = self.0.get(order as usize).copied().unwrap_or(0);

        (blocks as u64).saturating_mul(1 << order)
    }
}

/// What a zone has and can spare at a moment. No lock was held.
pub(crate) struct ZoneInfo(ffi::page_hinting_zone_info);

impl ZoneInfo {
    /// The numbers that decide what the zone can spare.
    pub(crate) fn room(&self) -> ZoneRoom {
        ZoneRoom {
            free: self.0.free as u64,
            high_watermark: self.0.high_wmark as u64,
            reserve: self.0.reserve as u64,
            managed: self.0.managed as u64,
            isolated: self.0.isolated as u64,
            largest_block: 1 << MAX_PAGE_ORDER,
        }
    }

    /// The unhinted blocks of each order from the largest down to `min_order`.
    pub(crate) fn unhinted(&self, min_order: u32) -> impl Iterator<Item = Unhinted> + '_ {
        let orders = (0..NR_PAGE_ORDERS).zip(self.0.unhinted).rev();

        orders
            .take_while(move |(order, _)| *order >= min_order)
            .map(|(order, blocks)| Unhinted {
                blocks: blocks as u64,
                order,
            })
    }
}
