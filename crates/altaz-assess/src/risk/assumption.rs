//! The assumptions that every assessment draws from, by name.

/// Makes the enumeration and its names.
macro_rules! assumptions {
    ($($(#[$doc:meta])* $variant:ident = $name:literal in $group:ident),+ $(,)?) => {
        /// An assumption with a range in the priors.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(usize)]
        pub enum Fixed { $($(#[$doc])* $variant),+ }
        impl Fixed {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];
            /// Name in the priors.
            pub const fn name(self) -> &'static str { match self { $(Self::$variant => $name),+ } }
            /// Group for Sobol indices.
            pub const fn group(self) -> Group { match self { $(Self::$variant => Group::$group),+ } }
            /// The assumption of this name.
            pub fn parse(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

assumptions! {
    /// Machine code for a line of C, bytes.
    BytesPerLineC = "bytes-per-line.c" in Size,
    /// The same, C++.
    BytesPerLineCpp = "bytes-per-line.cpp" in Size,
    /// The same, Go.
    BytesPerLineGo = "bytes-per-line.go" in Size,
    /// The same, Rust.
    BytesPerLineRust = "bytes-per-line.rust" in Size,
    /// Memory-safety vulnerabilities in a million lines of C.
    MemoryC = "density.memory.c" in Density,
    /// The same, C++.
    MemoryCpp = "density.memory.cpp" in Density,
    /// The same, Go.
    MemoryGo = "density.memory.go" in Density,
    /// The same, Rust.
    MemoryRust = "density.memory.rust" in Density,
    /// All other vulnerabilities in a million lines.
    Other = "density.other" in Density,
    /// Size of a layer in one recording over that in others of the same.
    Recording = "recording" in Recording,
    /// Density of a component without history over the average.
    Variation = "component-variation" in Components,
    /// Decay of density with age, years.
    AgeTau = "age.tau" in Age,
    /// Age of ordinary code, years.
    AgeReference = "age.reference" in Age,
    /// Mean years from introduction to fix.
    Lifetime = "lifetime" in Lifetime,
    /// Share of vulnerabilities that a selective practice numbers.
    Selective = "reporting.selective" in Reporting,
    /// Share of vulnerabilities that can be exploited.
    Exploitable = "exploitable" in Exploitable,
    /// Share that can be driven through one more boundary.
    Control = "control.per-boundary" in Control,
    /// Weight of a public, unpatched defect.
    KnownWeight = "known-weight" in Time,
    /// Days from fix to package.
    Lag = "upstream-lag" in Time,
    /// Days until a fix is installed where nothing was agreed.
    WindowUnagreed = "window.unagreed" in Time,
    /// Days in a layer that is nobody's.
    WindowOrphaned = "window.orphaned" in Time,
    /// Drivable code by number of permitted calls.
    InterfaceExponent = "interface-exponent" in Interface,
    /// Dependence of barriers.
    Dependence = "dependence" in Barriers,
}

/// Assumptions that are swapped together for Sobol indices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Group {
    /// Bytes per line.
    Size,
    /// Size of the recorded code.
    Recording,
    /// Density by language.
    Density,
    /// Densities of components: by history and by chance.
    Components,
    /// Age.
    Age,
    /// Lifetime.
    Lifetime,
    /// Reporting practice.
    Reporting,
    /// Share that is exploitable.
    Exploitable,
    /// Attacker control.
    Control,
    /// Time open.
    Time,
    /// Width of interfaces.
    Interface,
    /// Dependence of barriers.
    Barriers,
}

impl Group {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Size,
        Self::Recording,
        Self::Density,
        Self::Components,
        Self::Age,
        Self::Lifetime,
        Self::Reporting,
        Self::Exploitable,
        Self::Control,
        Self::Time,
        Self::Interface,
        Self::Barriers,
    ];

    /// In words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Size => "bytes per line",
            Self::Recording => "repeatability of recordings",
            Self::Density => "density by language",
            Self::Components => "density of components",
            Self::Age => "age",
            Self::Lifetime => "lifetime of defects",
            Self::Reporting => "reporting practice",
            Self::Exploitable => "share that is exploitable",
            Self::Control => "attacker control",
            Self::Time => "time open",
            Self::Interface => "width of interfaces",
            Self::Barriers => "dependence of barriers",
        }
    }
}
