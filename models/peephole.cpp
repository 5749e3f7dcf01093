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
const long GATES = 4 * LANES;  // columns of a block forward: i, f, g and o of LANES units
const long UNITS = 2 * LANES;  // columns of a block backward
const long DEPTH = 1024;       // of a product backward, so that its operands stay in the cache
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
struct Three { Vec i, f, o; };
static Three load_three(const float* p, long units) {
  return {load(p), load(p + units), load(p + 2 * units)};
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

// gates (steps, batch, 4, units): x V + b, and then the gates. weights: blocks (units, GATES).
// hiddens, cells (steps + 1, batch, units): the first is given. p (3, units): the peepholes.
template <class T>
void forward(long steps, long batch, long units, T* gates, const T* weights, const float* p,
             T* hiddens, float* cells) {
#pragma omp parallel num_threads(at::get_num_threads())
  {
    alignas(64) float tile[ROWS * GATES];
    for (long row_t = 0; row_t < steps * batch; row_t += batch) {
#pragma omp for schedule(static)
      for (long unit = 0; unit < units; unit += LANES) {
        auto [p_i, p_f, p_o] = load_three(p + unit, units);
        for (long first = row_t; first < row_t + batch; first += ROWS) {
          long rows = std::min(ROWS, row_t + batch - first);
          brgemm(rows, GATES, units, units, GATES, GATES, false, hiddens + first * units,
                 weights + 4 * unit * units, tile, vnni<T>);
          for (long row = 0; row < rows; row++) {
            const float* a = tile + row * GATES;
            T* gate = gates + (first + row) * 4 * units + unit;
            float* c = cells + (first + row) * units + unit;
            prefetch(gate + AHEAD * 4 * units, units, 4);
            prefetch(c + AHEAD * units, batch * units, 2);
            Vec c_prev = load(c);
            Vec i = sigmoid(load(a) + load(gate) + p_i * c_prev);
            Vec f = sigmoid(load(a + LANES) + load(gate + units) + p_f * c_prev);
            Vec g = tanh(load(a + 2 * LANES) + load(gate + 2 * units));
            Vec c_new = f * c_prev + i * g;
            Vec o = sigmoid(load(a + 3 * LANES) + load(gate + 3 * units) + p_o * c_new);
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

// weights: blocks (4 units, UNITS). dc (batch, units): of c_T, and then of c_0. Written: da, as
// gates, and dh (batch, units), of h_0. Added to: d_shared (7, units), of the biases of i, f, g and
// o and the peepholes.
template <class T>
void backward(long steps, long batch, long units, const T* gates, const T* weights, const float* p,
              const float* cells, const T* d_hiddens, float clip, float* dc, T* da, float* d_shared,
              float* dh_0) {
#pragma omp parallel num_threads(at::get_num_threads())
  {
    alignas(64) float tile[ROWS * UNITS] = {};  // what reaches h_t from step t + 1
    for (long t = steps - 1; t >= -1; t--) {
#pragma omp for schedule(static)
      for (long block = 0; block < units; block += UNITS) {
        for (long first = 0; first < batch; first += ROWS) {
          long rows = std::min(ROWS, batch - first);
          const T* da_next = da + ((t + 1) * batch + first) * 4 * units;
          for (long k = 0; t < steps - 1 && k < 4 * units; k += DEPTH)
            brgemm(rows, UNITS, std::min(DEPTH, 4 * units - k), 4 * units, UNITS, UNITS, k > 0,
                   da_next + k, weights + block * 4 * units + k * UNITS, tile, vnni<T>);
          for (long unit = block; unit < block + UNITS; unit += LANES) {
            Three peephole = load_three(p + unit, units);
            Vec sums[7];
            for (long k = 0; k < 7; k++) sums[k] = load(d_shared + k * units + unit);
            for (long row = 0; row < rows; row++) {
              Vec dh = load(tile + row * UNITS + unit - block);
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
              Vec dc_t = load(dc + here) + dh * o * (1 - tanh_c * tanh_c) + d_o * peephole.o;
              Vec d_i = dc_t * g * i * (1 - i);
              Vec d_f = dc_t * c_prev * f * (1 - f);
              Vec d_g = dc_t * i * (1 - g * g);
              Vec d[] = {d_i, d_f, d_g, d_o, d_i * c_prev, d_f * c_prev, d_o * c};
              for (long k = 0; k < 4; k++) {
                d[k] = clamp(d[k], -clip, clip);
                store(da + 4 * (at - unit) + k * units + unit, d[k]);
              }
              for (long k = 0; k < 7; k++) sums[k] += d[k];
              store(dc + here, dc_t * f + d_i * peephole.i + d_f * peephole.f);
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
