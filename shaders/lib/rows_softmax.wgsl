// Online softmax (Milakov and Gimelshein 2018; FlashAttention): with m the largest score so far and l the sum of
// exp(x - m), a new tile moves m to m', scales l and the accumulator by alpha = exp(m - m'), and adds its own weights.
//
// provides  Rows RowsResult rows_init rows_grow rows_move rows_weigh rows_finish score_factor
// requires  reduction (lanes_max lanes_sum), thread map (row_of), sink, pack (row_at), params, LAZY
//
// m is the same in all lanes of a row; l is each lane's own share until rows_finish. Scores come in units of log2, so that a
// weight is one exp2; with SCALE_LAST they come unscaled, and the scale, one for all and positive, is part of the exponent's
// multiply-add. With LAZY, m stays while no score exceeds it by more than that: then weights reach 2^LAZY instead
// of 1, and alpha is 1 for nearly all tiles.

const SCORE_UNIT: f32 = 1.4426950408889634; // log2(e)

// The m of a row without a key. Masked scores (NEG_INF) lie so far below that their weight is 0, with no test for it.
const NO_KEY: f32 = 0.1 * NEG_INF;

// What score_tile multiplies scores by.
fn score_factor(scale: f32) -> f32 {
    return select(scale * SCORE_UNIT, 1.0, SCALE_LAST);
}

// What scores and m are multiplied by, to be exponents of 2.
fn exponent_factor() -> f32 {
    return select(1.0, params.scale * SCORE_UNIT, SCALE_LAST);
}

struct Rows { m: array<f32, ROWS>, l: array<f32, ROWS> }

struct RowsResult { norm: array<f32, ROWS>, lse: array<f32, ROWS> }

fn rows_init() -> Rows {
    var rows = Rows();
    for (var r = 0u; r < ROWS; r++) { // unroll
        rows.m[r] = NO_KEY;
    }
    return rows;
}

fn own_top(s: ptr<function, array<vec4<f32>, SCORES>>, r: u32) -> f32 {
    var x = (*s)[r * KEYS4];
    for (var c = 0u; c < KEYS4; c++) { // unroll
        x = max(x, (*s)[r * KEYS4 + c]);
    }
    return max(max(x.x, x.y), max(x.z, x.w));
}

// Whether this thread has a score that moves a row's m.
fn rows_grow(rows: ptr<function, Rows>, s: ptr<function, array<vec4<f32>, SCORES>>) -> bool {
    let lazy = LAZY / exponent_factor();
    var grow = false;
    for (var r = 0u; r < ROWS; r++) { // unroll
        grow = grow | (own_top(s, r) > (*rows).m[r] + lazy);
    }
    return grow;
}

// Moves m to the scores' largest; returns the factor that rescales each row's accumulator.
fn rows_move(rows: ptr<function, Rows>, s: ptr<function, array<vec4<f32>, SCORES>>, t: u32) -> array<f32, ROWS> {
    var top = array<f32, ROWS>();
    for (var r = 0u; r < ROWS; r++) { // unroll
        top[r] = own_top(s, r);
    }
    lanes_max(&top, t);
    let factor = exponent_factor();
    let lazy = LAZY / factor;
    var alpha = array<f32, ROWS>();
    for (var r = 0u; r < ROWS; r++) { // unroll
        let old = (*rows).m[r];
        let m = select(old, top[r], top[r] > old + lazy);
        alpha[r] = exp2((old - m) * factor);
        (*rows).l[r] *= alpha[r];
        (*rows).m[r] = m;
    }
    return alpha;
}

// Turns scores into weights in place.
fn rows_weigh(rows: ptr<function, Rows>, s: ptr<function, array<vec4<f32>, SCORES>>) {
    let factor = exponent_factor();
    for (var r = 0u; r < ROWS; r++) { // unroll
        let m = (*rows).m[r] * factor;
        var sum = vec4<f32>();
        for (var c = 0u; c < KEYS4; c++) { // unroll
            let p = exp2((*s)[r * KEYS4 + c] * factor - vec4<f32>(m));
            (*s)[r * KEYS4 + c] = p;
            sum += p;
        }
        (*rows).l[r] += (sum.x + sum.y) + (sum.z + sum.w);
    }
}

// A sink adds exp(sink) to the denominator and no value; of several parts, the first counts it. A row without any weight
// gives 0 and lse -inf.
fn rows_finish(rows: Rows, at: QTile, t: u32) -> RowsResult {
    var l = rows.l;
    lanes_sum(&l, t);
    var result = RowsResult();
    for (var r = 0u; r < ROWS; r++) { // unroll
        let sunk = select(NEG_INF, sink(row_at(at, at.row + row_of(t, r)).h), at.part == 0u) * SCORE_UNIT;
        let own = rows.m[r] * exponent_factor();
        let m = max(own, sunk);
        let rescale = exp2(own - m);
        let total = l[r] * rescale + select(exp2(sunk - m), 0.0, sunk <= NEG_INF);
        let empty = total == 0.0;
        result.norm[r] = select(rescale / total, 0.0, empty);
        result.lse[r] = select(m / SCORE_UNIT + log(total), params.empty_lse, empty);
    }
    return result;
}
