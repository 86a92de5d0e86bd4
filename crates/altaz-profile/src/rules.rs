//! Which layer a piece of code belongs to: an ordered list of rules, first match wins.
//!
//! A deployment describes its layers with these rules; the collectors only apply them.

use globset::{Glob, GlobMatcher};
use serde::{Deserialize, Serialize};

use crate::model::Layer;

/// Whose memory the code was executed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Machine {
    /// The machine under test itself (the lab, or the host of a live recording).
    Host,
    /// A guest that runs nested in it.
    Guest,
}

/// Privilege of the code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Privilege {
    /// Ring 0.
    Kernel,
    /// Ring 3.
    User,
}

/// Where the binary's file comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// The service's image.
    Service,
    /// The userland of the machine under test (the lab's own root).
    Host,
    /// Neither: JIT code, vDSO, unknown.
    Unknown,
}

/// What is known of a piece of executed code when its layer is asked for.
#[derive(Debug, Clone, Copy)]
pub struct CodePlace<'a> {
    /// Machine whose memory it was executed from.
    pub machine: Machine,
    /// Privilege at execution.
    pub privilege: Privilege,
    /// Image of the file.
    pub origin: Origin,
    /// Path of the binary in its image, empty when unknown.
    pub binary: &'a str,
    /// Role of the address space, for binaries that several processes share
    /// (`sentry`, `gofer`); empty when not told apart.
    pub role: &'a str,
}

/// One rule. An absent condition matches everything.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerRule {
    /// Required machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<Machine>,
    /// Required privilege.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub privilege: Option<Privilege>,
    /// Required origin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// Required glob over the binary's path (`/usr/bin/python3*`, `*.so*`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binary: Option<String>,
    /// Required role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// The layer when all conditions hold; absent: the code is not part of the deployment (altaz's
    /// own agent) and is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layer: Option<Layer>,
}

impl LayerRule {
    /// A rule that matches everything, to be narrowed with struct update syntax.
    pub const fn any(layer: Layer) -> Self {
        Self {
            machine: None,
            privilege: None,
            origin: None,
            binary: None,
            role: None,
            layer: Some(layer),
        }
    }
}

/// Compiled rules.
#[derive(Debug, Clone)]
pub struct LayerRules(Vec<(LayerRule, Option<GlobMatcher>)>);

impl LayerRules {
    /// Compiles the rules.
    ///
    /// # Errors
    /// When a glob is not valid; the error names the glob.
    pub fn compile(rules: &[LayerRule]) -> Result<Self, globset::Error> {
        rules
            .iter()
            .map(|rule| {
                let glob = rule.binary.as_deref().map(Glob::new).transpose()?;
                Ok((rule.clone(), glob.map(|g| g.compile_matcher())))
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The layer of the first rule that matches; `None` when that rule excludes the code or no rule
    /// matches.
    pub fn layer_of(&self, place: CodePlace<'_>) -> Option<Layer> {
        fn ok<T: PartialEq>(want: &Option<T>, have: &T) -> bool {
            want.as_ref().is_none_or(|w| w == have)
        }
        self.0
            .iter()
            .find(|(rule, glob)| {
                ok(&rule.machine, &place.machine)
                    && ok(&rule.privilege, &place.privilege)
                    && ok(&rule.origin, &place.origin)
                    && rule.role.as_deref().is_none_or(|r| r == place.role)
                    && glob.as_ref().is_none_or(|g| g.is_match(place.binary))
            })
            .and_then(|(rule, _)| rule.layer)
    }
}
