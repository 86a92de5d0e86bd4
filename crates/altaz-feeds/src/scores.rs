//! EPSS scores (<https://www.first.org/epss/>) and CISA's Known Exploited Vulnerabilities, as
//! published; and compact tables of the same with other columns.
//!
//! A score without its day and model says little (models differ by orders of magnitude for one CVE),
//! so what the feed says of both is kept with each score.

use altaz_profile::vulnerability::Exploitation;
use serde::Deserialize;

use crate::{Decoded, FeedError, Problem, is_cve};

pub(crate) fn epss(file: &str, bytes: &[u8]) -> Result<Decoded, FeedError> {
    // "#model_version:v2025.03.14,score_date:2026-08-22T12:55:00Z" before the heading.
    let text = String::from_utf8_lossy(bytes.get(..bytes.len().min(512)).unwrap_or_default());
    let comment = text.lines().next().and_then(|l| l.strip_prefix('#'));
    let of = comment.map_or_else(|| format!("undated, from {file}"), |c| c.trim().to_owned());
    let mut out = Decoded::default();
    rows(file, bytes, &["cve"], &["epss"], &mut out, |out, place, row| {
        let Some([cve, score]) = row else { return };
        match score.parse::<f64>() {
            Ok(value) if (0.0..=1.0).contains(&value) => {
                let entry = out.exploitation.entry(cve.to_owned()).or_default();
                (entry.epss, entry.epss_of) = (Some(value), Some(of.clone()));
            }
            _ => out.problems.push(Problem::new(
                file,
                place,
                "epss",
                format!("`{score}` is no probability"),
            )),
        }
    })?;
    Ok(out)
}

#[derive(Deserialize)]
struct Catalogue {
    vulnerabilities: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Known {
    #[serde(rename = "cveID")]
    id: String,
    #[serde(default)]
    date_added: String,
}

pub(crate) fn kev(file: &str, bytes: &[u8]) -> Result<Decoded, FeedError> {
    let mut out = Decoded::default();
    let known = |out: &mut Decoded, id: &str, date: &str| {
        let date = Some(date.to_owned());
        out.exploitation.insert(id.to_owned(), Exploitation { kev: date, ..Default::default() });
    };
    if bytes.trim_ascii_start().starts_with(b"{") {
        let catalogue: Catalogue = serde_json::from_slice(bytes)
            .map_err(|e| FeedError::json(file, "KEV catalogue", &e))?;
        for (i, value) in catalogue.vulnerabilities.into_iter().enumerate() {
            match serde_json::from_value::<Known>(value) {
                Ok(k) if is_cve(&k.id) => known(&mut out, &k.id, &k.date_added),
                Ok(k) => out.problems.push(Problem::new(
                    file,
                    format!("vulnerabilities[{i}]"),
                    "cveID",
                    format!("`{}` is no CVE", k.id),
                )),
                Err(e) => out.problems.push(Problem::new(
                    file,
                    format!("vulnerabilities[{i}]"),
                    "record",
                    e.to_string(),
                )),
            }
        }
        return Ok(out);
    }
    rows(file, bytes, &["cveid"], &["dateadded"], &mut out, |out, _, row| {
        if let Some([cve, date]) = row {
            known(out, cve, date);
        }
    })?;
    Ok(out)
}

/// Two columns of a table: the CVE's and another.
fn rows(
    file: &str,
    bytes: &[u8],
    ids: &[&str],
    columns: &[&str],
    out: &mut Decoded,
    mut each: impl FnMut(&mut Decoded, String, Option<[&str; 2]>),
) -> Result<(), FeedError> {
    let mut reader =
        csv::ReaderBuilder::new().comment(Some(b'#')).flexible(true).from_reader(bytes);
    let heads = reader.headers().map_err(|e| FeedError::new(file, e.to_string()))?.clone();
    let column = |names: &[&str]| {
        let wanted = |h: &str| {
            names.iter().any(|n| h.trim_start_matches('\u{feff}').eq_ignore_ascii_case(n))
        };
        heads.iter().position(wanted).ok_or_else(|| {
            FeedError::new(file, format!("it has no column `{}`", names.join("` or `")))
        })
    };
    let (id, value) = (column(ids)?, column(columns)?);
    let mut record = csv::StringRecord::new();
    loop {
        let line = reader.position().line();
        let place = format!("line {line}");
        match reader.read_record(&mut record) {
            Ok(false) => return Ok(()),
            Ok(true) => match (record.get(id), record.get(value)) {
                (Some(cve), Some(value)) if is_cve(cve) => each(out, place, Some([cve, value])),
                (Some(cve), Some(_)) => {
                    let what = format!("`{cve}` is no CVE");
                    out.problems.push(Problem::new(file, place, "cve", what));
                }
                _ => out.problems.push(Problem::new(file, place, "row", "it has too few columns")),
            },
            Err(e) => {
                out.problems.push(Problem::new(file, place, "row", e.to_string()));
                if e.is_io_error() {
                    return Ok(());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_keep_their_model_and_broken_lines_are_named() {
        let text = "#model_version:v2025.03.14,score_date:2026-08-22T00:00:00Z\n\
            cve,epss,percentile\nCVE-2024-1086,0.281,0.9\nCVE-2024-2,1.7,0.1\nnone,0.1,0.1\nCVE-2024-3\n";
        let out = epss("e.csv", text.as_bytes()).unwrap();
        let e = &out.exploitation["CVE-2024-1086"];
        assert_eq!(e.epss, Some(0.281));
        assert!(e.epss_of.as_deref().unwrap().contains("v2025.03.14"));
        let texts: Vec<String> = out.problems.iter().map(ToString::to_string).collect();
        assert_eq!(texts.len(), 3, "{texts:?}");
        assert_eq!(texts[0], "e.csv, line 4, epss: `1.7` is no probability");
        assert!(epss("e.csv", b"a,b\n1,2\n").unwrap_err().to_string().contains("no column `cve`"));
    }

    #[test]
    fn known_exploited_ones_come_as_json_and_as_csv() {
        let json = r#"{"title":"KEV","catalogVersion":"1","dateReleased":"x","count":2,"vulnerabilities":[
            {"cveID":"CVE-2024-1086","dateAdded":"2024-05-30"},{"cveID":7}]}"#;
        let out = kev("k.json", json.as_bytes()).unwrap();
        assert_eq!(out.exploitation["CVE-2024-1086"].kev.as_deref(), Some("2024-05-30"));
        assert!(out.problems[0].to_string().contains("vulnerabilities[1]"));
        let table = "cveID,vendorProject,product,dateAdded\nCVE-2025-43300,Apple,\"iOS, iPadOS\",2025-08-21\n";
        let out = kev("k.csv", table.as_bytes()).unwrap();
        assert_eq!(out.exploitation["CVE-2025-43300"].kev.as_deref(), Some("2025-08-21"));
    }
}
