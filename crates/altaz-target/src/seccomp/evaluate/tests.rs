//! Filters written out by hand, and random ones against a concrete evaluation.

use proptest::prelude::*;

use super::*;

const LOAD_NUMBER: Instruction = op(0x20, 0);
const ALLOW: Instruction = op(0x06, RET_ALLOW);
const REFUSE: Instruction = op(0x06, 0x0005_0001);
const KILL: Instruction = op(0x06, 0x8000_0000);

const fn op(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

const fn branch(code: u16, k: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code, jt, jf, k }
}

const fn equal(k: u32, jt: u8, jf: u8) -> Instruction {
    branch(0x15, k, jt, jf)
}

fn on(filters: &[Program], number: u32) -> Verdict {
    evaluate(filters, X86_64, number)
}

/// `socket` (41) unless the family is 40; `getpid` (39) always; everything else refused.
fn typical() -> Program {
    vec![
        op(0x20, 4),
        equal(X86_64, 1, 0),
        KILL,
        LOAD_NUMBER,
        branch(0x35, X32_BIT, 6, 0),
        equal(39, 6, 0),
        equal(41, 0, 4),
        // The high half of the first argument, then the low one.
        op(0x20, 20),
        equal(0, 0, 3),
        op(0x20, 16),
        equal(40, 0, 1),
        REFUSE,
        ALLOW,
    ]
}

#[test]
fn a_condition_on_an_argument_is_told_from_a_call_that_is_always_allowed() {
    let f = [typical()];
    assert_eq!(on(&f, 39), Verdict::Allowed);
    assert_eq!(on(&f, 41), Verdict::Conditional);
    assert_eq!(on(&f, 40), Verdict::Denied);
    assert_eq!(on(&f, 39 | X32_BIT), Verdict::Denied);
    assert_eq!(evaluate(&f, I386, 39), Verdict::Denied);
}

#[test]
fn without_a_filter_everything_is_allowed() {
    assert_eq!(on(&[], 5), Verdict::Allowed);
}

#[test]
fn the_strictest_of_several_filters_counts() {
    let only = |n| vec![LOAD_NUMBER, equal(n, 0, 1), ALLOW, REFUSE];
    assert_eq!(on(&[only(1), only(2)], 1), Verdict::Denied);
    assert_eq!(on(&[only(1), only(1)], 1), Verdict::Allowed);
    let ask = vec![op(0x06, RET_USER_NOTIF)];
    assert_eq!(on(&[only(1), ask.clone()], 1), Verdict::Conditional);
    assert_eq!(on(&[only(1), ask], 2), Verdict::Denied);
    let killed = vec![KILL];
    assert_eq!(on(&[only(1), killed], 1), Verdict::Denied);
}

#[test]
fn a_refusal_for_sure_is_not_made_uncertain_by_another_filter() {
    let unknown = vec![op(0x20, 16), op(0x16, 0)];
    assert_eq!(on(std::slice::from_ref(&unknown), 1), Verdict::Conditional);
    assert_eq!(on(&[unknown, vec![REFUSE]], 1), Verdict::Denied);
}

#[test]
fn two_questions_that_contradict_each_other_leave_no_way() {
    // Refused if the argument is at least 10 and below 5 at once.
    let f = vec![
        op(0x20, 16),
        branch(0x35, 10, 0, 3),
        op(0x20, 16),
        branch(0x35, 5, 0, 1),
        ALLOW,
        branch(0x15, 3, 0, 1),
        REFUSE,
        ALLOW,
    ];
    // From the first branch's other way the argument is below 10, and 3 is possible.
    assert_eq!(on(&[f], 0), Verdict::Conditional);
    let never = vec![
        op(0x20, 16),
        branch(0x35, 10, 0, 3),
        op(0x20, 16),
        branch(0x25, 9, 1, 0),
        REFUSE,
        ALLOW,
    ];
    assert_eq!(on(&[never], 0), Verdict::Allowed);
}

#[test]
fn logging_lets_a_call_through_and_a_trap_does_not() {
    assert_eq!(on(&[vec![op(0x06, RET_LOG)]], 0), Verdict::Allowed);
    assert_eq!(on(&[vec![op(0x06, 0x0003_0000)]], 0), Verdict::Denied);
    assert_eq!(on(&[vec![op(0x06, RET_TRACE)]], 0), Verdict::Conditional);
    assert_eq!(on(&[vec![op(0x06, 0x1234_0000)]], 0), Verdict::Denied);
}

#[test]
fn a_filter_that_never_ends_its_ways_is_given_up_without_a_claim() {
    // 60 independent questions in a row whose answers are mixed into the memory: 2^60 ways.
    let mut f = vec![];
    for i in 0..60_u32 {
        f.extend([
            op(0x20, 16 + 4 * (i % 12)),
            branch(0x45, 1 << (i % 32), 0, 2),
            op(0x60, i % 16),
            op(0x04, i + 1),
            op(0x02, i % 16),
        ]);
    }
    f.push(ALLOW);
    let began = std::time::Instant::now();
    assert_eq!(on(&[f], 0), Verdict::Conditional);
    assert!(began.elapsed().as_secs() < 5);
}

/// Instructions that the kernel accepts at this place of a program of this length.
fn instruction(at: usize, length: usize) -> impl Strategy<Value = Instruction> {
    let constant = prop_oneof![
        0..8_u32,
        any::<u32>(),
        Just(39),
        Just(X86_64),
        Just(X32_BIT),
        Just(0xffff_ffff),
        Just(RET_ALLOW),
    ];
    let skip = (length - at).saturating_sub(2).min(20) as u8;
    let action = prop_oneof![
        Just(RET_ALLOW),
        Just(RET_LOG),
        Just(RET_TRACE),
        Just(RET_USER_NOTIF),
        Just(0x0005_0001_u32),
        Just(0x0003_0000),
        Just(0x8000_0000),
        Just(0),
    ];
    let memory = prop::sample::select(vec![0x60_u16, 0x61, 0x02, 0x03]);
    let alu = prop::sample::select(vec![
        0x04_u16, 0x0c, 0x14, 0x1c, 0x24, 0x2c, 0x3c, 0x44, 0x4c, 0x54, 0x5c, 0x6c, 0x7c, 0x84,
        0xa4, 0xac,
    ]);
    let shift = (prop::sample::select(vec![0x64_u16, 0x74]), 0..32_u32);
    let jump = prop::sample::select(vec![0x15_u16, 0x1d, 0x25, 0x2d, 0x35, 0x3d, 0x45, 0x4d]);
    let load = (0..16_u32).prop_map(|w| op(0x20, 4 * w));
    prop_oneof![
        4 => load,
        1 => (memory, 0..16_u32).prop_map(|(c, k)| op(c, k)),
        1 => prop::sample::select(vec![0x80_u16, 0x81, 0x07, 0x87]).prop_map(|c| op(c, 0)),
        1 => (prop::sample::select(vec![0x00_u16, 0x01]), constant.clone()).prop_map(|(c, k)| op(c, k)),
        2 => (alu, constant.clone()).prop_map(|(c, k)| op(c, k)),
        1 => shift.prop_map(|(c, k)| op(c, k)),
        1 => (1..100_u32).prop_map(|k| op(0x34, k)),
        6 => (jump, constant, 0..=skip, 0..=skip).prop_map(|(c, k, t, f)| branch(c, k, t, f)),
        1 => (0..=u32::from(skip)).prop_map(|k| op(0x05, k)),
        1 => action.prop_map(|k| op(0x06, k)),
    ]
}

fn program() -> impl Strategy<Value = Program> {
    (2..40_usize).prop_flat_map(|length| {
        let body: Vec<_> = (0..length - 1).map(|i| instruction(i, length)).collect();
        let end = prop::sample::select(vec![ALLOW, REFUSE, KILL, op(0x16, 0)]);
        (body, end).prop_map(|(mut body, end)| {
            body.push(end);
            body
        })
    })
}

fn word() -> impl Strategy<Value = u32> {
    prop_oneof![0..9_u32, any::<u32>(), Just(39), Just(40), Just(u32::MAX), Just(X32_BIT)]
}

/// The answer that counts for the kernel.
fn strictest(filters: &[Program], data: &[u32; WORDS]) -> Verdict {
    let answers = filters.iter().map(|f| (run(f, data) & ACTION) as i32);
    answers.min().map_or(Verdict::Allowed, |a| verdict_of(a as u32))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn no_arguments_contradict_what_is_claimed_of_all(
        filters in prop::collection::vec(program(), 1..4),
        number in prop_oneof![0..500_u32, any::<u32>()],
        arguments in prop::collection::vec(prop::collection::vec(word(), 14), 30),
    ) {
        let verdict = on(&filters, number);
        for words in arguments {
            let mut data = [0; WORDS];
            data[0] = number;
            data[1] = X86_64;
            data[2..].copy_from_slice(&words);
            let real = strictest(&filters, &data);
            prop_assert!(verdict == Verdict::Conditional || verdict == real, "{verdict:?}, really {real:?}");
        }
    }

    #[test]
    fn with_known_arguments_only_the_answer_is_exact(filter in program(), number in any::<u32>()) {
        // Loads of arguments become loads of the number, which is known.
        let known: Program = filter
            .into_iter()
            .map(|i| if i.code == 0x20 { op(0x20, i.k % 8 / 4 * 4) } else { i })
            .collect();
        let mut data = [0; WORDS];
        data[0] = number;
        data[1] = X86_64;
        prop_assert_eq!(on(std::slice::from_ref(&known), number), strictest(&[known], &data));
    }

    #[test]
    fn arbitrary_instructions_are_evaluated_without_panic(
        raw in prop::collection::vec((any::<u16>(), any::<u8>(), any::<u8>(), any::<u32>()), 0..60),
    ) {
        let program = raw.into_iter().map(|(code, jt, jf, k)| Instruction { code, jt, jf, k }).collect();
        on(&[program], 1);
    }
}
