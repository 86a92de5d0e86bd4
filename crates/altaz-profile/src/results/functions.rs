//! The functions of a deployment one by one: what a page's treemap, function table and growth
//! curves are drawn from.
//!
//! Kept apart from the figures, which are a thousand times smaller and go into `compare.json`; the
//! functions themselves are in the profile, and here in the form in which a report shows them.

use std::sync::Arc;

use crate::model::Layer;

/// What a deployment's load traversed while serving, by layer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FunctionTable {
    /// Name of the deployment, as in its figures.
    pub deployment: String,
    /// The layers in traversal order, those without functions left out.
    pub layers: Vec<LayerFunctions>,
}

/// The functions of one layer.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerFunctions {
    /// Which layer.
    pub layer: Layer,
    /// The components that the functions fall into, largest first, all of them.
    pub components: Vec<Arc<str>>,
    /// Every function that the layer's figures count, in the order of the profile.
    pub functions: Vec<FunctionRow>,
    /// Distinct functions seen up to the end of each window of the serve phase.
    pub growth: Vec<u64>,
}

/// One function.
#[derive(Debug, Clone, PartialEq)]
pub struct FunctionRow {
    /// Name; empty where the binary gives none.
    pub symbol: Arc<str>,
    /// Path of the binary in its image; `kernel` for the core kernel, `[name]` for a module.
    pub binary: Arc<str>,
    /// Start of the function, as in [`crate::Unit::offset`].
    pub offset: u64,
    /// Index of its component in [`LayerFunctions::components`].
    pub component: u32,
    /// Size in bytes.
    pub size: u64,
    /// Bytes of it that were executed; `None` where the instrument cannot know.
    pub covered: Option<u64>,
    /// Source file, where known.
    pub file: Option<Arc<str>>,
    /// Source line, where known.
    pub line: Option<u32>,
    /// First window of the serve phase in which it was seen, from 0.
    pub first_window: Option<u32>,
    /// In how many windows of the serve phase it was seen.
    pub windows: u32,
    /// Years since the code was last changed, where a source says so.
    pub age_years: Option<f32>,
    /// Known vulnerabilities that name this function, by identifier; `None` where nobody looked.
    pub vulnerabilities: Option<Vec<Arc<str>>>,
}
