//! Rectangles whose areas are in the proportion of their values and which are as square as may be:
//! the squarified layout of Bruls, Huizing and van Wijk (2000).
//!
//! Own code: the `treemap` crate leaves the last item out of the total that it divides by, so that
//! its areas are not in proportion. The page's script does the same for views that are opened in it.

/// A rectangle: x, y, width, height.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rect {
    pub x: f64,
    pub y: f64,
    pub w: f64,
    pub h: f64,
}

impl Rect {
    /// The rectangle without a border of this width on each side.
    pub fn inset(self, left: f64, top: f64, right: f64, bottom: f64) -> Self {
        Self {
            x: self.x + left,
            y: self.y + top,
            w: (self.w - left - right).max(0.0),
            h: (self.h - top - bottom).max(0.0),
        }
    }
}

/// A rectangle for each value, in the order of the values, which must be descending: those of an
/// ascending list are only less square. What is not positive gets an empty rectangle.
pub fn squarify(values: &[f64], bounds: Rect) -> Vec<Rect> {
    let usable = |v: &f64| v.is_finite() && *v > 0.0;
    let total: f64 = values.iter().filter(|v| usable(v)).sum();
    let area = bounds.w * bounds.h;
    let mut out = vec![Rect { w: 0.0, h: 0.0, ..bounds }; values.len()];
    if !total.is_finite() || total <= 0.0 || area <= 0.0 {
        return out;
    }
    let items: Vec<(usize, f64)> = values
        .iter()
        .enumerate()
        .filter(|(_, v)| usable(v))
        .map(|(i, v)| (i, v / total * area))
        .collect();
    let mut rest = bounds;
    let mut from = 0;
    while from < items.len() {
        let side = rest.w.min(rest.h);
        let mut sum = items[from].1;
        let mut to = from + 1;
        let largest = items[from].1;
        while to < items.len() {
            let next = items[to].1;
            if worst(largest, next, sum + next, side) > worst(largest, items[to - 1].1, sum, side) {
                break;
            }
            sum += next;
            to += 1;
        }
        place(&items[from..to], sum, &mut rest, &mut out);
        from = to;
    }
    out
}

/// The worst ratio of sides in a row with this largest and smallest item.
fn worst(largest: f64, smallest: f64, sum: f64, side: f64) -> f64 {
    let side2 = side * side;
    (side2 * largest / (sum * sum)).max(sum * sum / (side2 * smallest))
}

fn place(row: &[(usize, f64)], sum: f64, rest: &mut Rect, out: &mut [Rect]) {
    let upright = rest.w >= rest.h;
    let side = if upright { rest.h } else { rest.w };
    let thick = if side > 0.0 { sum / side } else { 0.0 };
    let mut at = 0.0;
    for &(i, area) in row {
        let long = if thick > 0.0 { area / thick } else { 0.0 };
        out[i] = if upright {
            Rect { x: rest.x, y: rest.y + at, w: thick, h: long }
        } else {
            Rect { x: rest.x + at, y: rest.y, w: long, h: thick }
        };
        at += long;
    }
    *rest =
        if upright { rest.inset(thick, 0.0, 0.0, 0.0) } else { rest.inset(0.0, thick, 0.0, 0.0) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOUNDS: Rect = Rect { x: 10.0, y: 20.0, w: 960.0, h: 440.0 };

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn areas_are_in_proportion_inside_the_bounds_and_apart(
            mut values in proptest::collection::vec(0.5_f64..1e6, 1..60),
        ) {
            values.sort_by(|a, b| b.total_cmp(a));
            let total: f64 = values.iter().sum();
            let rects = squarify(&values, BOUNDS);
            for (v, r) in values.iter().zip(&rects) {
                let share = r.w * r.h / (BOUNDS.w * BOUNDS.h);
                prop_assert!((share - v / total).abs() < 1e-9, "{share} of {}", v / total);
                prop_assert!(r.x >= BOUNDS.x - 1e-6 && r.y >= BOUNDS.y - 1e-6);
                prop_assert!(r.x + r.w <= BOUNDS.x + BOUNDS.w + 1e-6);
                prop_assert!(r.y + r.h <= BOUNDS.y + BOUNDS.h + 1e-6);
            }
            for (i, a) in rects.iter().enumerate() {
                for b in &rects[i + 1..] {
                    let apart = a.x + a.w <= b.x + 1e-6 || b.x + b.w <= a.x + 1e-6
                        || a.y + a.h <= b.y + 1e-6 || b.y + b.h <= a.y + 1e-6;
                    prop_assert!(apart, "{a:?} {b:?}");
                }
            }
        }

        #[test]
        fn any_values_give_rectangles_that_are_numbers(values in proptest::collection::vec(any::<f64>(), 0..9)) {
            let rects = squarify(&values, BOUNDS);
            prop_assert_eq!(rects.len(), values.len());
            for r in rects {
                prop_assert!([r.x, r.y, r.w, r.h].iter().all(|v| v.is_finite()), "{r:?}");
            }
        }
    }

    #[test]
    fn the_example_of_the_paper() {
        let rects =
            squarify(&[6.0, 6.0, 4.0, 3.0, 2.0, 2.0, 1.0], Rect { x: 0.0, y: 0.0, w: 6.0, h: 4.0 });
        assert_eq!(rects[0], Rect { x: 0.0, y: 0.0, w: 3.0, h: 2.0 });
        assert_eq!(rects[1], Rect { x: 0.0, y: 2.0, w: 3.0, h: 2.0 });
        assert!((rects[2].w - 12.0 / 7.0).abs() < 1e-9 && (rects[2].h - 7.0 / 3.0).abs() < 1e-9);
    }
}
