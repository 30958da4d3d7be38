from .misc import calculate_required_padding as calculate_required_padding
from .misc import ensure_tuple as ensure_tuple
from .types import NonEmptyStr as NonEmptyStr
from .types import NonNegInt as NonNegInt
from .types import PosFloat as PosFloat
from .types import PosInt as PosInt
from .types import Proportion as Proportion
from .types import Vector as Vector
