//! From an OCI seccomp profile to the programs that the kernel runs, for sandboxes that take a compiled
//! filter (bubblewrap) instead of a profile. Pure.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};
use serde_json::Value;
use syscalls::x86_64::Sysno;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// The programs of a profile, in the order in which they must be installed, as the kernel's
/// `sock_filter` records. One filter has one answer for what it matches, so each `ERRNO` rule with
/// a number of its own becomes a filter behind the first: of several refusals the kernel takes the
/// number of the last one installed.
///
/// Calls of another architecture than x86-64 end the process; container runtimes allow the 32-bit
/// ones by the same names. Names that x86-64 does not have are left out.
///
/// # Errors
/// When the profile has an action, an operator or a value that this does not know.
pub fn compile(profile: &Value) -> Result<Vec<Vec<u8>>, String> {
    let default = errno_of(profile, "defaultAction", "defaultErrnoRet")?
        .ok_or("a profile that allows by default is not supported")?;
    let mut allowed = Rules::new();
    let mut refused: BTreeMap<u32, Rules> = BTreeMap::new();
    for rule in profile["syscalls"].as_array().ok_or("a profile needs a list `syscalls`")? {
        let rules = match errno_of(rule, "action", "errnoRet")? {
            None => &mut allowed,
            Some(errno) => refused.entry(errno).or_default(),
        };
        let conditions = conditions(rule)?;
        for name in rule["names"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            let Ok(number) = name.parse::<Sysno>() else { continue };
            let of_call = rules.entry(number.id().into()).or_default();
            if !conditions.is_empty() {
                of_call.push(SeccompRule::new(conditions.clone()).map_err(|e| e.to_string())?);
            }
        }
    }
    let refuse = |errno| SeccompAction::Errno(errno);
    let mut programs = vec![program(allowed, refuse(default), SeccompAction::Allow)?];
    for (errno, rules) in refused {
        programs.push(program(rules, SeccompAction::Allow, refuse(errno))?);
    }
    Ok(programs)
}

/// The error number of an action, `None` for the action that allows.
fn errno_of(of: &Value, action: &str, number: &str) -> Result<Option<u32>, String> {
    match of[action].as_str() {
        Some("SCMP_ACT_ALLOW") => Ok(None),
        Some("SCMP_ACT_ERRNO") => {
            // A runtime's own default is EPERM.
            let errno = of[number].as_u64().unwrap_or(1);
            u32::try_from(errno).map(Some).map_err(|_| format!("{number} {errno} is too large"))
        }
        other => Err(format!("the action {other:?} is not supported")),
    }
}

fn conditions(rule: &Value) -> Result<Vec<SeccompCondition>, String> {
    let of = |arg: &Value| {
        let value = |key: &str| arg[key].as_u64();
        let index = value("index").and_then(|i| u8::try_from(i).ok()).ok_or("a bad `index`")?;
        let first = value("value").ok_or("a condition without `value`")?;
        let (operator, value) = match arg["op"].as_str() {
            Some("SCMP_CMP_EQ") => (SeccompCmpOp::Eq, first),
            Some("SCMP_CMP_NE") => (SeccompCmpOp::Ne, first),
            Some("SCMP_CMP_MASKED_EQ") => {
                (SeccompCmpOp::MaskedEq(first), value("valueTwo").unwrap_or(0))
            }
            other => return Err(format!("the operator {other:?} is not supported")),
        };
        SeccompCondition::new(index, SeccompCmpArgLen::Qword, operator, value)
            .map_err(|e| e.to_string())
    };
    rule["args"].as_array().into_iter().flatten().map(of).collect()
}

fn program(
    rules: Rules,
    otherwise: SeccompAction,
    matched: SeccompAction,
) -> Result<Vec<u8>, String> {
    let filter = SeccompFilter::new(rules, otherwise, matched, TargetArch::x86_64)
        .map_err(|e| e.to_string())?;
    let program = BpfProgram::try_from(filter).map_err(|e| e.to_string())?;
    let mut bytes = Vec::with_capacity(program.len() * 8);
    for instruction in program {
        bytes.extend_from_slice(&instruction.code.to_ne_bytes());
        bytes.extend_from_slice(&[instruction.jt, instruction.jf]);
        bytes.extend_from_slice(&instruction.k.to_ne_bytes());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp;
    use serde_json::json;

    #[test]
    fn the_default_profile_is_two_programs_of_whole_instructions() {
        let programs = compile(&seccomp::default_profile()).unwrap();
        assert_eq!(programs.len(), 2, "EPERM for what is not listed, ENOSYS for clone3");
        for p in &programs {
            assert!(p.len() % 8 == 0 && p.len() / 8 <= 4096, "{}", p.len());
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_not_left_out() {
        let profile = |action: &str, op: &str| {
            json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{
                "names": ["read"], "action": action,
                "args": [{ "index": 0, "value": 1, "op": op }],
            }]})
        };
        assert!(compile(&profile("SCMP_ACT_ALLOW", "SCMP_CMP_EQ")).is_ok());
        assert!(compile(&profile("SCMP_ACT_NOTIFY", "SCMP_CMP_EQ")).is_err());
        assert!(compile(&profile("SCMP_ACT_ALLOW", "SCMP_CMP_GT")).is_err());
        assert!(compile(&json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [] })).is_err());
        assert!(compile(&json!({})).is_err());
    }
}
