// Weights without a denominator: p = max(x, 0), out = sum_j p_j v_j (TransNormer's DiagAttention, Qin et al. 2022).
//
// provides  Rows RowsResult rows_init rows_update rows_finish
// requires  params

struct Rows { unused: u32 }

struct RowsResult { norm: array<f32, ROWS>, lse: array<f32, ROWS> }

fn rows_init() -> Rows {
    return Rows(0u);
}

// Masked scores are NEG_INF, so they become 0 like any other that is negative.
fn rows_update(rows: ptr<function, Rows>, s: ptr<function, array<vec4<f32>, SCORES>>, t: u32) -> array<f32, ROWS> {
    var alpha = array<f32, ROWS>();
    for (var r = 0u; r < ROWS; r++) { // unroll
        for (var c = 0u; c < KEYS4; c++) { // unroll
            (*s)[r * KEYS4 + c] = max((*s)[r * KEYS4 + c], vec4<f32>());
        }
        alpha[r] = 1.0;
    }
    return alpha;
}

fn rows_finish(rows: Rows, at: QTile, row0: u32, t: u32) -> RowsResult {
    var result = RowsResult();
    for (var r = 0u; r < ROWS; r++) { // unroll
        result.norm[r] = 1.0;
        result.lse[r] = params.empty_lse;
    }
    return result;
}
