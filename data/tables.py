"""Measured predictions as tables: printed, metrics.json, metrics.csv."""

import csv
import json

import numpy as np

import files


def summarise(scores, runs, interval):
    """{predictor: {metric: mean}} with the interval of the mean squared error and what `runs` counts.

    scores: {predictor: {metric: (V, H)}}; runs: {predictor: {kind: frames (V,)}}; interval(values (V,)) -> low, high.
    """
    summary = {}
    for name, rows in scores.items():
        summary[name] = {key: float(values.mean()) for key, values in rows.items()}
        summary[name]["mse_interval"] = interval(rows["mse"].mean(1))
        for kind, lengths in runs[name].items():
            summary[name][kind] = {
                "median": float(np.median(lengths)),
                "p10_p90": [float(q) for q in np.percentile(lengths, [10, 90])],
                "survival": [float((lengths > t).mean()) for t in range(rows["mse"].shape[1])],
            }
    return summary


def write_json(path, about, summary):
    with files.whole(path) as partial:
        partial.write_text(json.dumps({"about": about, "predictors": summary}, indent=1))


def write_csv(path, scores):
    """A line for each predictor and frame ahead."""
    columns = [key for key in next(iter(scores.values())) if key != "primed"]
    with files.whole(path) as partial, open(partial, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["predictor", "frame", *columns])
        for name, rows in scores.items():
            for t in range(rows["mse"].shape[1]):
                writer.writerow([name, t + 1, *(f"{rows[key][:, t].mean():.6g}" for key in columns)])


def print_table(summary):
    """Print the summary in Markdown."""
    header = [
        "predictor",
        "MSE (95 %)",
        "MAE",
        "PSNR",
        "SSIM",
        "SSIM at range 2",
        "BCE",
        "sharpness",
        "mass",
        "lost",
        "primed MSE",
    ]
    kinds = [kind for kind in ("coherent", "tracked") if kind in next(iter(summary.values()))]
    print("|", " | ".join(header + [f"{kind} frames" for kind in kinds]), "|")
    print("|---" * (len(header) + len(kinds)) + "|")
    for name, s in summary.items():
        low, high = s["mse_interval"]
        cells = [name, f"{s['mse']:.1f} ({low:.1f} to {high:.1f})", f"{s['mae']:.1f}", f"{s['psnr']:.2f}"]
        cells += [f"{s['ssim']:.3f}", f"{s['ssim_openstl']:.3f}", f"{s['bce']:.1f}"]
        cells += [f"{s['sharpness']:.2f}", f"{s['mass']:.2f}", f"{s['lost']:.1%}"]
        cells += [f"{s['primed']:.1f}" if "primed" in s else ""]
        print("|", " | ".join(cells + [f"{s[kind]['median']:g}" for kind in kinds]), "|")
