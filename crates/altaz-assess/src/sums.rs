//! Adding functions up.

use crate::select::Seen;

/// Number and size of some functions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sums {
    /// Functions.
    pub functions: u64,
    /// Their whole size in bytes.
    pub bytes: u64,
    /// Executed bytes; `None` as soon as one function's are not known.
    pub covered: Option<u64>,
}

impl Default for Sums {
    fn default() -> Self {
        Self { functions: 0, bytes: 0, covered: Some(0) }
    }
}

impl Sums {
    /// Adds one function. Sums saturate: sizes come from files that may be damaged.
    pub fn add(&mut self, size: u64, covered: Option<u64>) {
        self.merge(Self { functions: 1, bytes: size, covered });
    }

    /// Adds another sum.
    pub fn merge(&mut self, other: Self) {
        self.functions += other.functions;
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.covered = self.covered.zip(other.covered).map(|(a, b)| a.saturating_add(b));
    }

    /// The sum of these functions.
    pub fn of<'a>(seen: impl IntoIterator<Item = &'a Seen<'a>>) -> Self {
        let mut sums = Self::default();
        for s in seen {
            sums.add(s.unit.size, s.covered);
        }
        sums
    }
}
