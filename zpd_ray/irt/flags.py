"""What the flags of a fit say, in words."""

FLAGS = {
    "sigma_not_identified": "with one response an item, nothing shows how far items are from what their NLL "
    "says: the spread is its prior's, and the error of theta includes that",
    "sigma_fixed": "the spread of items around what their NLL says was given, not estimated",
    "sigma_at_lower_bound": "responses follow the NLL as closely as can be told",
    "responses_all_or_nothing": "each item is always right or always wrong, so that repeated responses say "
    "nothing of theta; raise measure.temperature, or ask once",
    "not_converged": "the fit did not reach its maximum: do not trust theta",
    "groups_not_converged": "the abilities of groups did not reach their maximum: do not trust them",
    "weakly_identified": "the responses hardly determine the fit",
    "all_right": "every response is right: theta is as high as its prior lets it",
    "all_wrong": "every response is wrong: theta is as low as its prior lets it",
    "at_floor": "no better than guessing: theta is as low as its prior lets it",
    "slope_not_positive": "items of higher NLL were not answered worse: NLL says nothing of difficulty here",
}
