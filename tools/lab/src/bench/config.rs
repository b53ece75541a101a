// SPDX-License-Identifier: GPL-2.0

//! Who hints a guest, and how that is put in force.

use crate::initramfs;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A configuration of the guest; the report's columns are in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Config {
    /// The host itself, without a guest: what a figure cannot be better than.
    Host,
    /// Nothing is hinted.
    Off,
    /// mm/page_reporting at its default delay, and at others in milliseconds.
    #[serde(rename = "upstream-2000")]
    Upstream2000,
    #[serde(rename = "upstream-250")]
    Upstream250,
    #[serde(rename = "upstream-100")]
    Upstream100,
    #[serde(rename = "upstream-0")]
    Upstream0,
    /// The module loaded, and told not to hint.
    #[serde(rename = "page_hinting-idle")]
    PageHintingIdle,
    /// The module at its defaults.
    #[serde(rename = "page_hinting")]
    PageHinting,
    /// The kernel without the series.
    UnpatchedOff,
    #[serde(rename = "unpatched-2000")]
    Unpatched2000,
}

const BALLOON_DRIVER: &str = "/sys/bus/virtio/drivers/virtio_balloon";
pub const SYSFS: &str = "/sys/kernel/mm/page_hinting";
const REPORTING_DELAY: &str = "/sys/module/page_reporting/parameters/page_reporting_delay_ms";

impl Config {
    pub const ALL: [Config; 10] = [
        Config::Host,
        Config::Off,
        Config::Upstream2000,
        Config::Upstream250,
        Config::Upstream100,
        Config::Upstream0,
        Config::PageHintingIdle,
        Config::PageHinting,
        Config::UnpatchedOff,
        Config::Unpatched2000,
    ];

    /// Those that a guest with the series can change between.
    pub const PATCHED: [Config; 6] = [
        Config::Off,
        Config::Upstream2000,
        Config::Upstream250,
        Config::Upstream100,
        Config::Upstream0,
        Config::PageHinting,
    ];

    /// The one of this name.
    pub fn parse(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|config| config.name() == name);
        found.ok_or_else(|| format!("there are: {}", Self::ALL.map(Self::name).join(", ")))
    }

    /// Its name in results.
    pub fn name(self) -> &'static str {
        match self {
            Config::Host => "host",
            Config::Off => "off",
            Config::Upstream2000 => "upstream-2000",
            Config::Upstream250 => "upstream-250",
            Config::Upstream100 => "upstream-100",
            Config::Upstream0 => "upstream-0",
            Config::PageHintingIdle => "page_hinting-idle",
            Config::PageHinting => "page_hinting",
            Config::UnpatchedOff => "unpatched-off",
            Config::Unpatched2000 => "unpatched-2000",
        }
    }

    /// Whether its kernel has the series.
    pub fn is_patched(self) -> bool {
        !matches!(self, Config::UnpatchedOff | Config::Unpatched2000)
    }

    /// mm/page_reporting's delay in milliseconds, where that is what hints.
    pub fn reporting_delay_ms(self) -> Option<u32> {
        match self {
            Config::Upstream2000 | Config::Unpatched2000 => Some(2000),
            Config::Upstream250 => Some(250),
            Config::Upstream100 => Some(100),
            Config::Upstream0 => Some(0),
            Config::Host
            | Config::Off
            | Config::UnpatchedOff
            | Config::PageHintingIdle
            | Config::PageHinting => None,
        }
    }

    /// Whether page_hinting is judged against it. A kernel without the series is there
    /// for the series to be judged, but what hints in it is upstream as well.
    pub fn is_upstream(self) -> bool {
        self.reporting_delay_ms().is_some()
    }

    /// The `-device` that a guest has which is never in another configuration.
    pub fn balloon(self) -> &'static str {
        match self {
            Config::Off | Config::UnpatchedOff => "virtio-balloon-pci,free-page-reporting=off",
            _ => crate::qemu::BALLOON,
        }
    }

    /// Shell commands by which a guest with [`crate::qemu::BALLOON`] comes from any
    /// configuration of its kernel to this one.
    ///
    /// The driver is unbound meanwhile: page_reporting's work is cancelled, so that no
    /// earlier delay is waited for. With no driver there is nobody to hint, and that is
    /// what off is; page_reporting's static key stays as it was after the boot.
    /// page_hinting is loaded before the driver is bound, so that page_reporting never
    /// has the device.
    pub fn put_in_force(self) -> String {
        let leave = format!(
            "{{ [ ! -d /sys/module/page_hinting ] || rmmod page_hinting; }} && \
             for device in {BALLOON_DRIVER}/virtio*; do \
             [ ! -e $device ] || echo ${{device##*/}} > {BALLOON_DRIVER}/unbind || exit; done"
        );
        // ID 5 of virtio is the balloon.
        let bind = format!(
            "for device in /sys/bus/virtio/devices/virtio*; do \
             read -r id < $device/device; \
             [ $id != 0x0005 ] || echo ${{device##*/}} > {BALLOON_DRIVER}/bind || exit; done"
        );
        let enter = match (self, self.reporting_delay_ms()) {
            (Config::PageHinting, _) => format!("insmod {} && {bind}", initramfs::MODULE),
            (Config::PageHintingIdle, _) => format!(
                "insmod {} && echo 0 > {SYSFS}/enabled && {bind}",
                initramfs::MODULE
            ),
            (_, Some(delay)) => format!("echo {delay} > {REPORTING_DELAY} && {bind}"),
            (_, None) => ":".to_owned(),
        };
        format!("({leave}) && ({enter})")
    }
}

impl fmt::Display for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The configurations in the order of a round: there and back by turns, so that what
/// drifts with time falls on all of them.
pub fn in_turn<T: Clone>(configs: &[T], round: u32) -> Vec<T> {
    let mut order = configs.to_vec();
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_results() {
        for config in Config::ALL {
            let json = serde_json::to_string(&config).unwrap();
            assert_eq!(json, format!("\"{config}\""));
            assert_eq!(serde_json::from_str::<Config>(&json).unwrap(), config);
            assert_eq!(Config::parse(config.name()), Ok(config));
        }
    }

    #[test]
    fn the_order_alternates() {
        let configs = [Config::Off, Config::Upstream0, Config::PageHinting];
        assert_eq!(in_turn(&configs, 0), configs);
        let back = [Config::PageHinting, Config::Upstream0, Config::Off];
        assert_eq!(in_turn(&configs, 1), back);
        assert_eq!(in_turn(&configs, 2), configs);
    }
}
