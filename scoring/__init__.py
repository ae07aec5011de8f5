"""From what codecs made to scores: `measure` joins a metric, a codec and a dataset through the store.

measure   a score: the mean over clips (or one number of all of them), its interval, the failures by name
clips     the value of one clip: what a metric of each kind is given
whole     the metrics of all clips at once: codes, distributions
examples  the clips to look at and listen to
"""

from earmark.scoring.measure import Measured, in_order, measure, metric_names, metric_units, metric_variants

__all__ = ["Measured", "in_order", "measure", "metric_names", "metric_units", "metric_variants"]
