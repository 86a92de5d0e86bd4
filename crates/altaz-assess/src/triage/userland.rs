//! What a vulnerability of an installed package is: by its functions where a feed names them, else
//! by the package's binaries.

use altaz_profile::Unit;
use altaz_profile::results::triage::{Level, State};
use altaz_profile::vulnerability::Affected;

use super::code::{base, describe};
use super::kernel::Answer;

/// Traversed functions that a finding lists.
const LISTED: usize = 8;

/// The answer for a package of which these rows were traversed.
pub fn answer(name: &str, units: &[&Unit], affected: &[&Affected]) -> Answer {
    let functions: Vec<&str> =
        affected.iter().flat_map(|a| &a.functions).map(String::as_str).collect();
    if functions.is_empty() {
        return if units.is_empty() {
            let why = format!("no function of a binary of {name} was traversed");
            Answer::new(State::NotTraversed, Level::Package, why)
        } else {
            let why = format!(
                "package-level evidence only: {} functions of {name} were traversed; which ones are \
                 vulnerable is not known",
                units.len()
            );
            Answer::new(State::Unmapped, Level::Package, why)
        };
    }
    let hit: Vec<&&Unit> =
        units.iter().filter(|u| functions.iter().any(|f| same(&u.symbol, f))).collect();
    if hit.is_empty() {
        let named = functions.iter().take(LISTED).copied().collect::<Vec<_>>().join(", ");
        let why = format!("none of {named} was traversed");
        return Answer::new(State::NotTraversed, Level::Function, why);
    }
    let why = format!("this load traversed {} of its vulnerable functions", hit.len());
    let mut answer = Answer::new(State::Traversed, Level::Function, why);
    answer.traversed = hit.iter().take(LISTED).map(|u| describe(u)).collect();
    answer
}

/// Whether a symbol is a function that an advisory names. Go advisories write `pkg.Type.Method`, the
/// linker `pkg.(*Type).Method`; Rust's hash at the end does not count.
fn same(symbol: &str, advisory: &str) -> bool {
    if symbol == advisory {
        return true;
    }
    if symbol.contains("(*") {
        let plain: String = symbol.replace("(*", "").replace(')', "");
        return plain == advisory;
    }
    if symbol.contains("::") {
        let hash = |s: &str| s.len() == 17 && s.starts_with('h');
        return match symbol.rsplit_once("::") {
            Some((plain, end)) if hash(end) => plain == advisory,
            _ => false,
        };
    }
    !symbol.contains('/') && base(symbol) == advisory
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::unit;
    use altaz_profile::Layer;
    use altaz_profile::vulnerability::Ecosystem;

    #[test]
    fn methods_and_hashes_are_read_as_advisories_mean_them() {
        assert!(same("example.org/m/user.GetExecUser", "example.org/m/user.GetExecUser"));
        assert!(same("example.org/m.(*Spec).Load", "example.org/m.Spec.Load"));
        assert!(same("a::b::f::h0123456789abcdef", "a::b::f"));
        assert!(same("vnc_client_read.part.0", "vnc_client_read"));
        assert!(!same("example.org/m.(*Spec).Load", "example.org/m.Spec.Loa"));
    }

    #[test]
    fn without_functions_the_package_is_all_that_can_be_said() {
        let u = unit(Layer::App, "/usr/sbin/nginx", 1, &[1]);
        let a = Affected::new("debian", Ecosystem::Debian, "nginx");
        let of = |units: &[&Unit], a: &Affected| {
            let answer = answer("nginx", units, &[a]);
            (answer.state, answer.level)
        };
        assert_eq!(of(&[&u], &a), (State::Unmapped, Level::Package));
        assert_eq!(of(&[], &a), (State::NotTraversed, Level::Package));
        let mut b = a.clone();
        b.functions = vec!["function_1".into()];
        assert_eq!(of(&[&u], &b), (State::Traversed, Level::Function));
        b.functions = vec!["function_2".into()];
        assert_eq!(of(&[&u], &b), (State::NotTraversed, Level::Function));
    }
}
