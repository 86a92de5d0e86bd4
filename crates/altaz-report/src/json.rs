//! JSON for programs: keys in the order of the values' fields, two spaces of indent, a newline at
//! the end. An undefined figure is `null`.

use altaz_profile::results::diff::DiffResult;
use altaz_profile::results::risk::{AdviceResult, ModelResult, RiskResult};
use altaz_profile::results::triage::TriageResult;
use altaz_profile::results::{CompareResult, ProfileReport};
use serde::Serialize;
use thiserror::Error;

/// A report that could not be written.
#[derive(Debug, Error)]
pub enum ReportError {
    /// The values have no JSON form.
    #[error("the result of `{service}` has no JSON form: {source}")]
    Json {
        /// Service of the result.
        service: String,
        /// What serde says.
        source: serde_json::Error,
    },
}

/// Content of `compare.json`.
///
/// # Errors
/// When the values have no JSON form (no value that altaz makes).
pub fn compare_json(result: &CompareResult) -> Result<String, ReportError> {
    pretty(result, &result.service)
}

/// JSON form of one profile's report.
///
/// # Errors
/// When the values have no JSON form (no value that altaz makes).
pub fn profile_json(report: &ProfileReport) -> Result<String, ReportError> {
    pretty(report, &report.service)
}

/// JSON form of a difference.
///
/// # Errors
/// When the values have no JSON form (no value that altaz makes).
pub fn diff_json(result: &DiffResult) -> Result<String, ReportError> {
    pretty(result, &result.b.service)
}

/// JSON form of a risk assessment.
///
/// # Errors
/// When the values have no JSON form (no value that altaz makes).
pub fn assess_json(result: &RiskResult) -> Result<String, ReportError> {
    pretty(result, &result.service)
}

/// JSON form of a what-if.
///
/// # Errors
/// When the values have no JSON form (no value that altaz makes).
pub fn model_json(result: &ModelResult) -> Result<String, ReportError> {
    pretty(result, &result.scenario)
}

/// JSON form of a decision table.
///
/// # Errors
/// When the values have no JSON form (no value that altaz makes).
pub fn advice_json(result: &AdviceResult) -> Result<String, ReportError> {
    pretty(result, "advice")
}

/// JSON form of a triage.
///
/// # Errors
/// When the values have no JSON form (no value that altaz makes).
pub fn triage_json(result: &TriageResult) -> Result<String, ReportError> {
    let service = result.profiles.first().map_or("", |p| p.service.as_str());
    pretty(result, service)
}

fn pretty<T: Serialize>(value: &T, service: &str) -> Result<String, ReportError> {
    let mut text = serde_json::to_string_pretty(value)
        .map_err(|source| ReportError::Json { service: service.into(), source })?;
    text.push('\n');
    Ok(text)
}
