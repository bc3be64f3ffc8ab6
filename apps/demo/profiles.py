"""A working day in June, quarter hour by quarter hour: how a household draws on the grid, without and with PV.

Source: the German standard load profiles of 2025 (BDEW), H25 (household) and P25 (household with PV), in Wh a
quarter hour for a yearly draw of 1,000,000 kWh. The figures are facts; scale them by a home's yearly consumption.
"""

from math import pi, sin
from typing import Final

QUARTERS_A_DAY: Final = 96
PROFILE_KWH_A_YEAR: Final = 1_000_000

HOUSEHOLD_WH: Final[tuple[int, ...]] = (
    24_566,
    23_272,
    22_285,
    21_359,
    20_683,
    19_963,
    19_347,
    18_946,
    18_670,
    18_489,
    18_314,
    18_186,
    18_206,
    18_126,
    18_170,
    18_153,
    18_528,
    18_632,
    18_853,
    19_045,
    20_067,
    20_371,
    21_471,
    22_314,
    24_353,
    25_720,
    26_764,
    27_425,
    28_003,
    28_186,
    27_927,
    27_396,
    27_053,
    26_902,
    26_620,
    26_389,
    26_280,
    26_276,
    26_144,
    25_945,
    25_788,
    25_950,
    26_097,
    26_699,
    27_366,
    28_161,
    28_958,
    29_466,
    30_071,
    30_265,
    30_096,
    29_938,
    29_872,
    29_646,
    29_530,
    29_164,
    28_938,
    28_706,
    28_503,
    28_710,
    28_887,
    28_917,
    29_161,
    29_525,
    30_139,
    30_738,
    31_405,
    32_463,
    33_719,
    34_995,
    36_264,
    37_760,
    39_058,
    40_211,
    41_200,
    41_886,
    42_156,
    42_285,
    42_311,
    42_223,
    42_009,
    41_574,
    41_086,
    40_532,
    39_921,
    38_973,
    38_531,
    38_663,
    38_607,
    37_262,
    35_618,
    33_694,
    31_706,
    29_771,
    28_195,
    26_662,
)

HOUSEHOLD_WITH_PV_WH: Final[tuple[int, ...]] = (
    25_140,
    23_933,
    23_034,
    23_625,
    23_073,
    22_456,
    22_812,
    22_061,
    23_328,
    22_235,
    22_235,
    21_893,
    22_513,
    21_939,
    21_148,
    21_360,
    22_635,
    22_571,
    23_761,
    23_292,
    26_222,
    23_793,
    22_078,
    20_438,
    19_156,
    18_005,
    18_299,
    16_809,
    15_047,
    13_255,
    12_603,
    12_350,
    11_310,
    10_409,
    9_817,
    8_833,
    7_900,
    7_019,
    7_044,
    6_786,
    6_561,
    6_056,
    5_190,
    5_706,
    5_372,
    4_914,
    4_887,
    5_479,
    5_907,
    5_506,
    5_525,
    5_494,
    4_820,
    5_011,
    4_741,
    5_147,
    5_066,
    4_886,
    4_593,
    4_510,
    4_933,
    5_133,
    5_745,
    5_854,
    5_592,
    6_016,
    7_121,
    7_765,
    9_296,
    9_800,
    11_840,
    14_496,
    16_874,
    18_142,
    20_926,
    22_936,
    23_887,
    24_781,
    26_491,
    28_309,
    30_670,
    32_491,
    33_502,
    35_665,
    37_861,
    37_958,
    38_883,
    37_353,
    36_011,
    34_002,
    32_422,
    30_766,
    29_604,
    29_130,
    26_768,
    26_969,
)

# A clear day in June at 50 degrees north: sunrise, sunset and the sine of a sun that stands highest at 13:15.
_DAYLIGHT: Final = range(20, 87)  # 05:00 to 21:45, summer time
SUN: Final[tuple[float, ...]] = tuple(
    sin(pi * (quarter - _DAYLIGHT.start) / (len(_DAYLIGHT) - 1)) if quarter in _DAYLIGHT else 0.0
    for quarter in range(QUARTERS_A_DAY)
)
_BREEZE_QUARTERS: Final = 37
# Before 04:00 homes with and without PV draw alike; so much of the profile with PV is one of the same size.
_NIGHT: Final = slice(0, 16)
_SAME_HOME: Final = sum(HOUSEHOLD_WH[_NIGHT]) / sum(HOUSEHOLD_WITH_PV_WH[_NIGHT])


def consumption_wh(quarter: int, kwh_a_year: int) -> int:
    """What a home of this yearly consumption uses in a quarter hour of the day."""
    return HOUSEHOLD_WH[quarter % QUARTERS_A_DAY] * kwh_a_year // PROFILE_KWH_A_YEAR


def grid_draw_with_pv_wh(quarter: int, kwh_a_year: int) -> int:
    """What such a home draws from the grid when it has PV; the rest of its use it covers itself."""
    with_pv = HOUSEHOLD_WITH_PV_WH[quarter % QUARTERS_A_DAY] * _SAME_HOME * kwh_a_year / PROFILE_KWH_A_YEAR
    return min(round(with_pv), consumption_wh(quarter, kwh_a_year))


def production_wh(quarter: int, kwh_a_day: float) -> int:
    """What PV of this yield on a day in June makes in a quarter hour, by the sun."""
    return round(kwh_a_day * 1_000 * SUN[quarter % QUARTERS_A_DAY] / sum(SUN))


def wind_wh(quarter: int, kwh_a_day: float) -> int:
    """What a turbine of this yield makes in a quarter hour: never nothing, by a breeze of some nine hours."""
    breeze = 1 + 0.5 * sin(2 * pi * quarter / _BREEZE_QUARTERS)
    return round(kwh_a_day * 1_000 / QUARTERS_A_DAY * breeze)
