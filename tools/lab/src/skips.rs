// SPDX-License-Identifier: GPL-2.0

//! The skips that are expected, as the selftests' file "skips" lists them.

use anyhow::{Context, Result};
use std::fs;
use std::path::Path;

/// All of them.
#[derive(Debug, Default)]
pub struct Skips(Vec<Skip>);

#[derive(Debug)]
struct Skip {
    /// Patterns with "*" for any text.
    test: String,
    point: String,
    reason: String,
}

impl Skips {
    /// Reads the file among the installed selftests; there need be none.
    pub fn read(selftests: &Path) -> Result<Self> {
        let path = selftests.join("skips");
        if !path.exists() {
            return Ok(Self::default());
        }
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    /// Lines of a test, a point of it ("-" for the whole test) and a reason; "#" begins a comment.
    pub fn parse(text: &str) -> Result<Self> {
        let lines = text.lines().map(str::trim);
        let entries = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        entries
            .map(|line| {
                let mut words = line.splitn(3, char::is_whitespace);
                let mut next = || {
                    let word = words.next().map(str::trim).filter(|word| !word.is_empty());
                    word.map(str::to_owned)
                        .with_context(|| format!("\"{line}\" is not a test, a point and a reason"))
                };
                Ok(Skip {
                    test: next()?,
                    point: next()?,
                    reason: next()?,
                })
            })
            .collect::<Result<_>>()
            .map(Self)
    }

    /// Whether a point of this name, which begins with its test's, may be skipped for this reason.
    pub fn expects(&self, name: &str, reason: &str) -> bool {
        let (test, point) = name.split_once(' ').unwrap_or((name, "-"));
        self.0.iter().any(|skip| {
            matches(&skip.test, test)
                && matches(&skip.point, point)
                && matches(&skip.reason, reason)
        })
    }
}

/// Whether a text is as a pattern has it, in which "*" stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => text.strip_prefix(before).is_some_and(|rest| {
            let ends = rest.char_indices().map(|(at, _)| at).chain([rest.len()]);
            ends.into_iter().any(|at| matches(after, &rest[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "", true),
            ("a*c", "abbc", true),
            ("a*c", "abcd", false),
            ("*b*", "abc", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_line_needs_three_parts() {
        assert!(Skips::parse("# none\n\na b c d").is_ok());
        assert!(Skips::parse("a b").is_err());
    }

    #[test]
    fn a_whole_test_is_a_dash() {
        let skips = Skips::parse("*/vsim - no node").unwrap();
        assert!(skips.expects("release/vsim", "no node"));
        assert!(!skips.expects("release/vsim/a.sh b", "no node"));
        assert!(!skips.expects("release/vsim", "another reason"));
    }
}
