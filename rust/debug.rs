// SPDX-License-Identifier: GPL-2.0

//! The table of free areas, in debugfs.

use kernel::{
    c_str,
    debugfs::{
        Dir,
        File, //
    },
    fmt,
    prelude::*, //
};

use crate::{
    pages_to_kb,
    zone::{
        Zone,
        MAX_PAGE_ORDER, //
    }, //
};

/// The directory `page_hinting` of debugfs.
///
/// Dropping it removes the directory and waits for reads under way. A file that is still open then
/// must not be closed later: the kernel crate does not let it pin the module.
pub(crate) struct Files {
    _zones: Pin<KBox<File<()>>>,
    _dir: Dir,
}

impl Files {
    /// Creates the directory. Without debugfs there is none, and no error.
    pub(crate) fn new() -> Result<Self> {
        let dir = Dir::new(c_str!("page_hinting"));
        let zones = KBox::pin_init(
            dir.read_callback_file(c_str!("zones"), (), &|(), f| zones(f)),
            GFP_KERNEL,
        )?;

        Ok(Self {
            _zones: zones,
            _dir: dir,
        })
    }
}

/// A line for each order of each zone: what is free, and what of it the host knows to be free.
fn zones(f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(
        f,
        "# node zone order free_blocks unhinted_blocks offline_blocks freed_blocks bound_blocks offline_kb"
    )?;
    for zone in Zone::all() {
        let name = zone.name().to_str().unwrap_or("?");

        for order in 0..=MAX_PAGE_ORDER {
            let Some(area) = zone.area(order) else {
                break;
            };

            writeln!(
                f,
                "{} {} {} {} {} {} {} {} {}",
                zone.node(),
                name,
                order,
                area.nr_free,
                area.unhinted(),
                area.nr_offline,
                area.nr_freed(),
                area.nr_bound,
                pages_to_kb((area.nr_offline as u64) << order)
            )?;
        }
        writeln!(
            f,
            "# node {} zone {}: isolated_kb {}",
            zone.node(),
            name,
            pages_to_kb(zone.isolated())
        )?;
    }
    Ok(())
}
