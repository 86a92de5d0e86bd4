//! Numbers as people read them. Undefined is `–`, never zero and never NaN; nothing is rounded up
//! to completeness.

/// How an undefined figure is printed.
pub const UNDEFINED: &str = "–";

/// Above this, numbers lose their digits: no real figure gets there, damaged files do.
const LARGEST: f64 = 999_999.9;

/// A count with thousands separated: `1,204`.
pub fn count(n: u64) -> String {
    if n as f64 > LARGEST {
        return format!("{:.1e}", n as f64);
    }
    separated(&n.to_string())
}

/// An optional count.
pub fn count_opt(n: Option<u64>) -> String {
    n.map_or_else(|| UNDEFINED.into(), count)
}

/// Bytes in kB (1000 bytes) with one decimal: `1,310.2`.
pub fn kb(bytes: u64) -> String {
    let kb = bytes as f64 / 1000.0;
    if kb > LARGEST {
        return format!("{kb:.1e}");
    }
    let text = format!("{kb:.1}");
    match text.split_once('.') {
        Some((whole, rest)) => format!("{}.{rest}", separated(whole)),
        None => text,
    }
}

/// Optional bytes in kB.
pub fn kb_opt(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| UNDEFINED.into(), kb)
}

/// A share that must not look better than it is, rounded down: 0.9996 is `99.9 %`, only 1 is
/// `100 %`.
pub fn coverage(share: Option<f64>) -> String {
    match share {
        Some(1.0) => "100 %".into(),
        // The small addend undoes binary rounding of shares like 0.997.
        Some(s) if (0.0..1.0).contains(&s) => {
            format!("{:.1} %", (s * 1000.0 + 1e-9).floor() / 10.0)
        }
        _ => UNDEFINED.into(),
    }
}

/// A share in whole percent.
pub fn percent(share: Option<f64>) -> String {
    match share {
        Some(s) if (0.0..=1.0).contains(&s) => format!("{:.0} %", s * 100.0),
        _ => UNDEFINED.into(),
    }
}

/// Estimated number of unseen functions: `~3`, `<1`, `0`.
pub fn unseen(n: Option<f64>) -> String {
    match n {
        Some(0.0) => "0".into(),
        Some(n) if n > 0.0 && n < 1.0 => "<1".into(),
        Some(n) if (1.0..LARGEST).contains(&n) => format!("~{}", separated(&format!("{n:.0}"))),
        Some(n) if n.is_finite() && n > 0.0 => format!("~{n:.0e}"),
        _ => UNDEFINED.into(),
    }
}

/// A number expected by chance, or a probability: `<0.001`, `0.024`, `4.8`, `390`.
pub fn chance(n: Option<f64>) -> String {
    match n {
        Some(n) if (0.0..0.001).contains(&n) => "<0.001".into(),
        Some(n) if (0.001..1.0).contains(&n) => format!("{n:.3}"),
        Some(n) if (1.0..10.0).contains(&n) => format!("{n:.1}"),
        Some(n) if (10.0..LARGEST).contains(&n) => separated(&format!("{n:.0}")),
        Some(n) if n.is_finite() && n > 0.0 => format!("{n:.0e}"),
        _ => UNDEFINED.into(),
    }
}

/// A difference of bytes in kB, with its sign.
pub fn kb_signed(bytes: i64) -> String {
    let sign = if bytes < 0 { "−" } else { "+" };
    format!("{sign}{}", kb(bytes.unsigned_abs()))
}

/// A finite number with this many decimals.
pub fn decimal(n: Option<f64>, decimals: usize) -> String {
    match n {
        Some(n) if n.abs() <= LARGEST => format!("{n:.decimals$}"),
        Some(n) if n.is_finite() => format!("{n:.1e}"),
        _ => UNDEFINED.into(),
    }
}

fn separated(digits: &str) -> String {
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_sizes_are_separated_by_thousands() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(1204), "1,204");
        assert_eq!(count(999_999), "999,999");
        assert_eq!(count(1_000_000), "1.0e6");
        assert_eq!(count(u64::MAX), "1.8e19");
        assert_eq!(kb(0), "0.0");
        assert_eq!(kb(61_040), "61.0");
        assert_eq!(kb(1_310_249), "1,310.2");
        assert_eq!(kb_opt(None), "–");
    }

    #[test]
    fn coverage_is_never_rounded_up_to_complete() {
        assert_eq!(coverage(Some(0.99961)), "99.9 %");
        assert_eq!(coverage(Some(0.997)), "99.7 %");
        assert_eq!(coverage(Some(1.0)), "100 %");
        assert_eq!(coverage(Some(0.0)), "0.0 %");
    }

    #[test]
    fn what_is_undefined_or_no_number_is_a_dash() {
        for bad in [None, Some(f64::NAN), Some(f64::INFINITY), Some(-1.0)] {
            assert_eq!(coverage(bad), "–");
            assert_eq!(unseen(bad), "–");
            assert_eq!(percent(bad), "–");
        }
        assert_eq!(decimal(Some(f64::NAN), 1), "–");
    }

    #[test]
    fn what_chance_brings_is_never_rounded_to_nothing() {
        let shown = [0.0, 1e-9, 0.0244, 0.9999, 4.76, 390.2, 1e9].map(|n| chance(Some(n)));
        assert_eq!(shown, ["<0.001", "<0.001", "0.024", "1.000", "4.8", "390", "1e9"]);
        assert_eq!((kb_signed(-1_500), kb_signed(0)), ("−1.5".into(), "+0.0".into()));
        assert_eq!(chance(Some(f64::NAN)), "–");
    }

    #[test]
    fn unseen_functions_are_an_estimate_and_look_like_one() {
        assert_eq!(unseen(Some(0.0)), "0");
        assert_eq!(unseen(Some(0.2)), "<1");
        assert_eq!(unseen(Some(3.1)), "~3");
        assert_eq!(unseen(Some(1234.4)), "~1,234");
    }
}
