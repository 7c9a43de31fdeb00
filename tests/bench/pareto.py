"""ParetoBandit's own features, from the package and its 25 components."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pareto_bandit import FeatureService
from pareto_bandit.config import DEFAULT_PCA_PATH

from banditroute.features.embedding import make_embedder
from policies.base import Float32
from sim.data.dataset import Dataset


def pareto_features(dataset: Dataset, folder: Path) -> Float32:
    """Return ParetoBandit's own features[n, 26]: MiniLM, the 25 components it ships, intercept.

    Parameters
    ----------
    dataset : its prompts.
    folder : where they are kept from one run to the next; MiniLM takes milliseconds a prompt.
    """
    kept = folder / f"paretobandit-{dataset.digest()[:16]}.npy"
    if kept.exists():
        found: Float32 = np.load(kept, allow_pickle=False)
        return found
    prompts = list(dataset.prompts)
    vectors = dict(zip(prompts, make_embedder("minilm").vectors(prompts), strict=True))
    service = FeatureService(
        custom_encoder=vectors.__getitem__, embedding_dim=384, pca_path=DEFAULT_PCA_PATH
    )
    features = np.array(service.extract_features_batch(prompts), dtype=np.float32)
    np.save(kept, features)
    return features
