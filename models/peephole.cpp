// The steps of a peephole LSTM on a CPU. models/peephole.py has the equations and the eager twin;
// models/peephole_cpu.py builds this file, packs the weights and calls it.
// A tile, the product of some rows and one block of weights, stays in the core's cache, where the
// cell is applied to it. No sum is divided among threads: their number changes no bit.
#include <algorithm>
#include <cstdint>

// What libtorch exports and does not document, declared as in ATen/native/CPUBlas.h.
namespace c10 { struct BFloat16 { uint16_t bits; }; }
namespace at { int get_num_threads(); }
namespace at::native::cpublas {
// C (M, N) = A (M, K) B (K, N), or added to it. vnni: B is stored as (K / 2, N, 2).
void brgemm(int64_t M, int64_t N, int64_t K, int64_t ld_a, int64_t ld_b, int64_t ld_c, bool add,
            const float* A, const float* B, float* C, bool vnni);
void brgemm(int64_t M, int64_t N, int64_t K, int64_t ld_a, int64_t ld_b, int64_t ld_c, bool add,
            const c10::BFloat16* A, const c10::BFloat16* B, float* C, bool vnni);
void brgemm_release(bool vnni);  // gives the core's matrix unit back
}
using namespace at::native::cpublas;
using BF16 = c10::BFloat16;

const long LANES = 16;         // units computed at once
const long WIDTH = 4 * LANES;  // columns of a block: all gates of LANES units or, backward, units
const long ROWS = 128;         // of a tile
typedef float Vec __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint32_t Bits __attribute__((vector_size(4 * LANES)));
typedef uint16_t Half __attribute__((vector_size(2 * LANES), aligned(2), may_alias));

static Vec load(const float* p) { return *(Vec*)p; }
static Vec load(const BF16* p) { return (Vec)(__builtin_convertvector(*(Half*)p, Bits) << 16); }
static void store(float* p, Vec x) { *(Vec*)p = x; }
static void store(BF16* p, Vec x) {  // rounded to the nearest, ties to even
  Bits bits = x == x ? (Bits)x : Bits{} + 0x7fc00000;  // NaN would become a number
  *(Half*)p = __builtin_convertvector((bits + 0x7fff + (bits >> 16 & 1)) >> 16, Half);
}
static Vec clamp(Vec x, float low, float high) {  // NaN stays NaN
  Vec lows = Vec{} + low, highs = Vec{} + high;
  return x < lows ? lows : x > highs ? highs : x;
}
static Vec exp(Vec x) {  // 2^n exp(r), |r| <= log(2) / 2; off by 3e-7 of itself
  x = clamp(x, -80, 80);  // 2^n is finite, and no denormal number
  Vec shifted = x * 1.44269504f + 0x1.8p23f;  // n in the lowest bits
  Vec n = shifted - 0x1.8p23f;
  Vec r = x - n * 0.693145752f - n * 1.42860677e-6f;
  Vec sum = r * (1.f / 720) + 1.f / 120;
  for (float factor : {1.f / 24, 1.f / 6, 1.f / 2, 1.f, 1.f}) sum = sum * r + factor;
  return sum * (Vec)(((Bits)shifted + 127) << 23);
}
static Vec sigmoid(Vec x) { return 1 / (1 + exp(-x)); }
static Vec tanh(Vec x) { return 2 / (1 + exp(-2 * x)) - 1; }

// tile (rows, WIDTH) = a (rows, depth) block (depth, WIDTH), or added to it.
template <class T>
static void multiply(long rows, long depth, const T* a, const T* block, bool add, float* tile) {
  brgemm(rows, WIDTH, depth, depth, WIDTH, WIDTH, add, a, block, tile, sizeof(T) == 2);
}

// For each step n runs body(n, first of `width` units, first row, rows, tile) for all units and
// rows, which threads divide, and then waits. A thread's own tile is zero at first.
template <class F> static void run(long steps, long batch, long units, long width, F body) {
#pragma omp parallel num_threads(at::get_num_threads()) firstprivate(body)
  {
    alignas(64) float tile[ROWS * WIDTH] = {};
    for (long n = 0; n < steps; n++) {
#pragma omp for collapse(2) schedule(static)
      for (long unit = 0; unit < units; unit += width)
        for (long row = 0; row < batch; row += ROWS)
          body(n, unit, row, std::min(ROWS, batch - row), tile);
    }
    brgemm_release(true);
  }
}

// x (steps, batch, inputs). weights_in, weights_hid: blocks (inputs or units, WIDTH).
// shared (7, units): the biases of i, f, g and o and the peepholes. Written: gates (steps, batch,
// 4, units) and all but the first, which is given, of hiddens, cells (steps + 1, batch, units).
template <class T> void forward(long steps, long batch, long units, T* gates, long inputs,
    const T* x, const T* weights_in, const T* weights_hid, const float* shared, T* hiddens,
    float* cells) {
  run(steps, batch, units, LANES, [=](long t, long unit, long first, long rows, auto tile) {
    auto b = [=](long k) { return load(shared + k * units + unit); };
    Vec b_i = b(0), b_f = b(1), b_g = b(2), b_o = b(3), p_i = b(4), p_f = b(5), p_o = b(6);
    first += t * batch;
    multiply(rows, inputs, x + first * inputs, weights_in + 4 * unit * inputs, false, tile);
    multiply(rows, units, hiddens + first * units, weights_hid + 4 * unit * units, true, tile);
    for (long row = first; row < first + rows; row++, tile += WIDTH) {
      T* gate = gates + row * 4 * units + unit;
      float* c = cells + row * units + unit;
      Vec c_prev = load(c);
      Vec i = sigmoid(load(tile) + b_i + p_i * c_prev);
      Vec f = sigmoid(load(tile + LANES) + b_f + p_f * c_prev);
      Vec g = tanh(load(tile + 2 * LANES) + b_g);
      Vec c_new = f * c_prev + i * g;
      Vec o = sigmoid(load(tile + 3 * LANES) + b_o + p_o * c_new);
      for (Vec each : {i, f, g, o}) store(gate, each), gate += units;
      store(c + batch * units, c_new);
      store(hiddens + (row + batch) * units + unit, o * tanh(c_new));
    }
  });
}

// weights: blocks (4 units, WIDTH). dc (batch, units): of c_T, and then of c_0. Written: da, as
// gates, and dh_0 (batch, units). Added to: d_shared, as shared, one for each tile's rows.
template <class T> void backward(long steps, long batch, long units, const T* gates,
    const T* weights, const float* shared, const float* cells, const T* d_hiddens, float clip,
    float* dc, T* da, float* d_shared, float* dh_0) {
  run(steps + 1, batch, units, WIDTH, [=](long n, long block, long first, long rows, auto tile) {
    long t = steps - 1 - n, end = std::min(block + WIDTH, units);
    const T* da_next = da + ((t + 1) * batch + first) * 4 * units;
    if (n) multiply(rows, 4 * units, da_next, weights + block * 4 * units, false, tile);
    for (long unit = block; unit < end; unit += LANES, tile += LANES) {
      auto b = [=](long k) { return load(shared + k * units + unit); };
      Vec p_i = b(4), p_f = b(5), p_o = b(6), sums[7] = {};
      for (long row = 0; row < rows; row++) {
        Vec dh = load(tile + row * WIDTH);  // what reaches h_t from step t + 1
        long here = (first + row) * units + unit, at = t * batch * units + here;
        if (t < 0) { store(dh_0 + here, dh); continue; }
        const T* gate = gates + 4 * (at - unit) + unit;
        Vec i = load(gate), f = load(gate + units);
        Vec g = load(gate + 2 * units), o = load(gate + 3 * units);
        Vec c_prev = load(cells + at), c = load(cells + at + batch * units), tanh_c = tanh(c);
        dh += load(d_hiddens + at);
        Vec d_o = dh * tanh_c * o * (1 - o);
        Vec dc_t = load(dc + here) + dh * o * (1 - tanh_c * tanh_c) + d_o * p_o;
        Vec d_i = dc_t * g * i * (1 - i);
        Vec d_f = dc_t * c_prev * f * (1 - f);
        Vec d_g = dc_t * i * (1 - g * g);
        store(dc + here, dc_t * f + d_i * p_i + d_f * p_f);
        Vec d[] = {d_i, d_f, d_g, d_o, d_i * c_prev, d_f * c_prev, d_o * c};
        for (long k = 0; k < 4; k++) d[k] = clamp(d[k], -clip, clip);
        for (long k = 0; k < 4; k++) store(da + (gate - gates) + k * units, d[k]);
        for (long k = 0; k < 7; k++) sums[k] += d[k];
      }
      float* all = d_shared + first / ROWS * 7 * units + unit;
      for (long k = 0; k < 7; k++) store(all + k * units, load(all + k * units) + sums[k]);
    }
  });
}

template <class T> static bool multiplies() try {  // whether this processor does
  T zeros[2 * WIDTH] = {};
  float tile[WIDTH];
  multiply(1, 2, zeros, zeros, false, tile);
  brgemm_release(true);
  return true;
} catch (...) { return false; }
extern "C" {
void* float32[] = {(void*)multiplies<float>, (void*)forward<float>, (void*)backward<float>};
void* bfloat16[] = {(void*)multiplies<BF16>, (void*)forward<BF16>, (void*)backward<BF16>};
}
