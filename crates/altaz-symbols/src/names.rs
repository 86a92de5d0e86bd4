//! Names for people.

/// Mangled names longer than this stay mangled: demangling is not linear.
const DEMANGLE_LIMIT: usize = 4096;

/// The readable form of a Rust or C++ symbol; any other name comes back as it is.
///
/// Profiles keep the raw name: two different symbols can have the same readable form.
pub fn demangle(name: &str) -> String {
    if name.len() > DEMANGLE_LIMIT {
        return name.to_string();
    }
    // GCC's suffixes (`.cold`, `.constprop.0`, `.part.1`) stay behind the readable name.
    let (stem, suffix) = match name.find('.').filter(|&i| i > 0 && name.starts_with("_Z")) {
        Some(i) if !name[i..].starts_with(".llvm") => name.split_at(i),
        _ => (name, ""),
    };
    if let Ok(rust) = rustc_demangle::try_demangle(stem) {
        return format!("{rust:#}{suffix}");
    }
    if stem.starts_with("_Z")
        && let Ok(symbol) = cpp_demangle::Symbol::new(stem)
        && let Ok(text) = symbol.demangle()
    {
        return format!("{text}{suffix}");
    }
    name.to_string()
}

#[cfg(test)]
mod tests {
    use super::demangle;

    #[test]
    fn rust_and_cpp_names_become_readable_and_others_stay() {
        assert_eq!(
            demangle("_ZN4core3fmt9Formatter3pad17h0123456789abcdefE"),
            "core::fmt::Formatter::pad"
        );
        assert_eq!(
            demangle("_ZNSt6vectorIiSaIiEE9push_backEOi"),
            "std::vector<int, std::allocator<int> >::push_back(int&&)"
        );
        assert_eq!(demangle("_ZN3foo3barEv.cold"), "foo::bar().cold");
        assert_eq!(demangle("main.main"), "main.main");
        assert_eq!(demangle("memcpy"), "memcpy");
    }
}
