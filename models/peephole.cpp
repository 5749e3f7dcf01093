// The steps of a peephole LSTM on a CPU. models/peephole.py has the equations and the eager twin;
// models/peephole_cpu.py builds this file, packs the weights and calls it.
//
// The product of one block of weights is a tile of float32 that stays in the core's cache, where
// the cell is applied to it. No sum is divided among threads: their number changes no bit.
#include <algorithm>
#include <cstdint>
#include <cstring>

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
using c10::BFloat16;

const long LANES = 16;         // units computed at once
const long WIDTH = 4 * LANES;  // columns of a tile: forward the gates of LANES units, backward units
const long ROWS = 128;         // of a tile
const long AHEAD = 8;          // rows fetched beforehand: they lie too far apart to be foreseen

template <class T> const bool vnni = sizeof(T) == 2;
typedef float Vec __attribute__((vector_size(4 * LANES)));
typedef uint32_t Bits __attribute__((vector_size(4 * LANES)));
typedef uint16_t Half __attribute__((vector_size(2 * LANES)));

static Vec load(const float* from) { Vec x; memcpy(&x, from, sizeof x); return x; }
static void store(float* to, Vec x) { memcpy(to, &x, sizeof x); }
static Vec load(const BFloat16* from) {
  Half x;
  memcpy(&x, from, sizeof x);
  return (Vec)(__builtin_convertvector(x, Bits) << 16);
}
static void store(BFloat16* to, Vec x) {  // rounded to the nearest, ties to even
  Bits bits = (Bits)x;
  Half half = __builtin_convertvector((bits + 0x7fff + (bits >> 16 & 1)) >> 16, Half);
  memcpy(to, &half, sizeof half);
}
template <class T> static void prefetch(const T* at, long stride, int count) {
  for (int k = 0; k < count; k++) __builtin_prefetch(at + k * stride);
}

static Vec clamp(Vec x, float low, float high) {  // NaN stays NaN
  Vec lows = Vec{} + low, highs = Vec{} + high;
  x = x < lows ? lows : x;
  return x > highs ? highs : x;
}
static Vec exp(Vec x) {  // 2^n exp(r), |r| <= log(2) / 2; off by 1e-7 of itself
  x = clamp(x, -80, 80);  // 2^n is finite, and no denormal number
  Vec shifted = x * 1.44269504f + 0x1.8p23f;  // n in the lowest bits
  Vec n = shifted - 0x1.8p23f;
  Vec r = x - n * 0.693145752f - n * 1.42860677e-6f;
  Vec sum = r * (1.f / 720) + 1.f / 120;
  for (float factor : {1.f / 24, 1.f / 6, 1.f / 2, 1.f, 1.f}) sum = sum * r + factor;
  return (Vec)((Bits)sum + ((Bits)shifted << 23));
}
static Vec sigmoid(Vec x) { return 1 / (1 + exp(-x)); }
static Vec tanh(Vec x) { return 2 / (1 + exp(-2 * x)) - 1; }

// x (steps, batch, inputs). weights_in, weights_hid: blocks (inputs or units, WIDTH).
// shared (7, units): the biases of i, f, g and o and the peepholes. Written: gates (steps, batch,
// 4, units) and all but the first, which is given, of hiddens, cells (steps + 1, batch, units).
template <class T>
void forward(long steps, long batch, long units, T* gates, long inputs, const T* x,
             const T* weights_in, const T* weights_hid, const float* shared, T* hiddens,
             float* cells) {
#pragma omp parallel num_threads(at::get_num_threads())
  {
    alignas(64) float tile[ROWS * WIDTH];
    for (long row_t = 0; row_t < steps * batch; row_t += batch) {
#pragma omp for schedule(static)
      for (long unit = 0; unit < units; unit += LANES) {
        auto row = [=](long k) { return load(shared + k * units + unit); };
        Vec b_i = row(0), b_f = row(1), b_g = row(2), b_o = row(3);
        Vec p_i = row(4), p_f = row(5), p_o = row(6);
        for (long first = row_t; first < row_t + batch; first += ROWS) {
          long rows = std::min(ROWS, row_t + batch - first);
          brgemm(rows, WIDTH, inputs, inputs, WIDTH, WIDTH, false, x + first * inputs,
                 weights_in + 4 * unit * inputs, tile, vnni<T>);
          brgemm(rows, WIDTH, units, units, WIDTH, WIDTH, true, hiddens + first * units,
                 weights_hid + 4 * unit * units, tile, vnni<T>);
          for (long row = 0; row < rows; row++) {
            const float* a = tile + row * WIDTH;
            T* gate = gates + (first + row) * 4 * units + unit;
            float* c = cells + (first + row) * units + unit;
            prefetch(gate + AHEAD * 4 * units, units, 4);
            prefetch(c + AHEAD * units, batch * units, 2);
            Vec c_prev = load(c);
            Vec i = sigmoid(load(a) + b_i + p_i * c_prev);
            Vec f = sigmoid(load(a + LANES) + b_f + p_f * c_prev);
            Vec g = tanh(load(a + 2 * LANES) + b_g);
            Vec c_new = f * c_prev + i * g;
            Vec o = sigmoid(load(a + 3 * LANES) + b_o + p_o * c_new);
            for (Vec each : {i, f, g, o}) store(gate, each), gate += units;
            store(c + batch * units, c_new);
            store(hiddens + (first + row + batch) * units + unit, o * tanh(c_new));
          }
        }
      }
    }
    brgemm_release(vnni<T>);
  }
}

// weights: blocks (4 units, WIDTH). dc (batch, units): of c_T, and then of c_0. Written: da, as
// gates, and dh (batch, units), of h_0. Added to: d_shared (7, units), of the biases of i, f, g and
// o and the peepholes.
template <class T>
void backward(long steps, long batch, long units, const T* gates, const T* weights,
              const float* shared, const float* cells, const T* d_hiddens, float clip, float* dc, T* da, float* d_shared,
              float* dh_0) {
#pragma omp parallel num_threads(at::get_num_threads())
  {
    alignas(64) float tile[ROWS * WIDTH] = {};  // what reaches h_t from step t + 1
    for (long t = steps - 1; t >= -1; t--) {
#pragma omp for schedule(static)
      for (long block = 0; block < units; block += WIDTH) {
        for (long first = 0; first < batch; first += ROWS) {
          long rows = std::min(ROWS, batch - first);
          const T* da_next = da + ((t + 1) * batch + first) * 4 * units;
          if (t < steps - 1)
            brgemm(rows, WIDTH, 4 * units, 4 * units, WIDTH, WIDTH, false, da_next,
                   weights + block * 4 * units, tile, vnni<T>);
          for (long unit = block; unit < std::min(block + WIDTH, units); unit += LANES) {
            Vec p_i = load(shared + 4 * units + unit), p_f = load(shared + 5 * units + unit);
            Vec p_o = load(shared + 6 * units + unit), sums[7];
            for (long k = 0; k < 7; k++) sums[k] = load(d_shared + k * units + unit);
            for (long row = 0; row < rows; row++) {
              Vec dh = load(tile + row * WIDTH + unit - block);
              long here = (first + row) * units + unit;
              if (t < 0) { store(dh_0 + here, dh); continue; }
              long at = t * batch * units + here;
              const T* gate = gates + 4 * (at - unit) + unit;
              Vec i = load(gate), f = load(gate + units);
              Vec g = load(gate + 2 * units), o = load(gate + 3 * units);
              Vec c_prev = load(cells + at), c = load(cells + at + batch * units);
              Vec tanh_c = tanh(c);
              dh += load(d_hiddens + at);
              Vec d_o = dh * tanh_c * o * (1 - o);
              Vec dc_t = load(dc + here) + dh * o * (1 - tanh_c * tanh_c) + d_o * p_o;
              Vec d_i = dc_t * g * i * (1 - i);
              Vec d_f = dc_t * c_prev * f * (1 - f);
              Vec d_g = dc_t * i * (1 - g * g);
              Vec d[] = {d_i, d_f, d_g, d_o, d_i * c_prev, d_f * c_prev, d_o * c};
              for (long k = 0; k < 4; k++) {
                d[k] = clamp(d[k], -clip, clip);
                store(da + 4 * (at - unit) + k * units + unit, d[k]);
              }
              for (long k = 0; k < 7; k++) sums[k] += d[k];
              store(dc + here, dc_t * f + d_i * p_i + d_f * p_f);
            }
            for (long k = 0; k < 7; k++) store(d_shared + k * units + unit, sums[k]);
          }
        }
      }
    }
    brgemm_release(vnni<T>);
  }
}

template <class T> bool multiplies() try {  // whether brgemm does so on this processor
  T a[LANES * LANES] = {};
  float c[LANES * LANES];
  brgemm(LANES, LANES, LANES, LANES, LANES, LANES, false, a, a, c, vnni<T>);
  brgemm_release(vnni<T>);
  return true;
} catch (...) { return false; }
extern "C" {
bool multiplies_float32() { return multiplies<float>(); }
bool multiplies_bfloat16() { return multiplies<BFloat16>(); }
void* forward_float32 = (void*)forward<float>;
void* forward_bfloat16 = (void*)forward<BFloat16>;
void* backward_float32 = (void*)backward<float>;
void* backward_bfloat16 = (void*)backward<BFloat16>;
}
