// Weights without a denominator: p = max(x, 0), out = sum_j p_j v_j (TransNormer's DiagAttention, Qin et al. 2022).
//
// provides  Rows RowsResult rows_init rows_grow rows_move rows_weigh rows_finish score_factor
// requires  params

fn score_factor(scale: f32) -> f32 {
    return scale;
}

struct Rows { unused: u32 }

struct RowsResult { norm: array<f32, ROWS>, lse: array<f32, ROWS> }

fn rows_init() -> Rows {
    return Rows(0u);
}

fn rows_grow(rows: ptr<function, Rows>, s: ptr<function, array<vec4<f32>, SCORES>>) -> bool {
    return false;
}

fn rows_move(rows: ptr<function, Rows>, s: ptr<function, array<vec4<f32>, SCORES>>, t: u32) -> array<f32, ROWS> {
    var alpha = array<f32, ROWS>();
    for (var r = 0u; r < ROWS; r++) { // unroll
        alpha[r] = 1.0;
    }
    return alpha;
}

// Masked scores are NEG_INF, so they become 0 like any other that is negative.
fn rows_weigh(rows: ptr<function, Rows>, s: ptr<function, array<vec4<f32>, SCORES>>) {
    for (var n = 0u; n < SCORES; n++) { // unroll
        (*s)[n] = max((*s)[n], vec4<f32>());
    }
}

fn rows_finish(rows: Rows, at: QTile, t: u32) -> RowsResult {
    var result = RowsResult();
    for (var r = 0u; r < ROWS; r++) { // unroll
        result.norm[r] = 1.0;
        result.lse[r] = params.empty_lse;
    }
    return result;
}
