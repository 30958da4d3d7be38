from .analyzer import Analyzer as Analyzer
from .analyzer import AnalyzerConfig as AnalyzerConfig
from .stats_analyzer import StatsAnalyzer as StatsAnalyzer
from .stats_analyzer import StatsAnalyzerConfig as StatsAnalyzerConfig
