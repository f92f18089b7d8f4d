//! Which operators there are, by domain and name.

use super::attributes::Attributes;
use super::labels::Labels;
use super::operator::Operator;
use super::proto::Node;
use super::tensor::Tensor;
use super::{arithmetic, encode, ensemble, linear, mapping, reducing, scale, shaping};

/// The domain of the operators of classical models.
pub(super) const ML: &str = "ai.onnx.ml";

/// A node made ready to run.
pub(super) struct Made {
    pub(super) operator: Box<dyn Operator>,
    /// The classes that its scores are about, and the index of the output that they are in.
    pub(super) classes: Option<(usize, Labels)>,
}

impl From<Box<dyn Operator>> for Made {
    fn from(operator: Box<dyn Operator>) -> Self {
        Self {
            operator,
            classes: None,
        }
    }
}

/// A classifier writes its label first and its scores second.
fn classifier((operator, labels): (Box<dyn Operator>, Labels)) -> Made {
    Made {
        operator,
        classes: Some((1, labels)),
    }
}

/// Makes a node ready. `first` is what its first input is like, `opset` the version of its domain
/// that the file was written for.
pub(super) fn make(node: &Node<'_>, first: Option<&Tensor>, opset: i64) -> Result<Made, String> {
    let attributes = Attributes::new(node);
    let made = match node.domain {
        "" => standard(node.operator, &attributes, opset)?.map(Made::from),
        ML => classical(node.operator, &attributes, first, opset)?,
        _ => None,
    };
    let made = made.ok_or("it is not among the operators that this program runs")?;
    attributes.finish()?;
    Ok(made)
}

fn standard(
    operator: &str,
    attributes: &Attributes<'_>,
    opset: i64,
) -> Result<Option<Box<dyn Operator>>, String> {
    // Inputs instead of attributes.
    const SLICE_BY_INPUTS: i64 = 10;
    let by_name = arithmetic::fold(operator)
        .or_else(|| arithmetic::compare(operator))
        .or_else(|| mapping::unary(operator));
    if by_name.is_some() {
        return Ok(by_name);
    }
    if let Some(reduction) = reducing::reduce(operator, attributes)? {
        return Ok(Some(reduction));
    }
    Ok(Some(match operator {
        "Identity" => shaping::identity(),
        "Cast" => mapping::cast(attributes)?,
        "Clip" => mapping::clip(attributes)?,
        "Where" => mapping::choose(),
        "Reshape" => shaping::reshape(attributes)?,
        "Flatten" => shaping::flatten(attributes)?,
        "Squeeze" => shaping::squeeze(attributes, false)?,
        "Unsqueeze" => shaping::squeeze(attributes, true)?,
        "Shape" => shaping::shape_of(),
        "ConstantOfShape" => shaping::constant_of_shape(attributes)?,
        "Expand" => shaping::expand(),
        "Concat" => shaping::concat(attributes)?,
        "Gather" => shaping::gather(attributes)?,
        "Slice" if opset >= SLICE_BY_INPUTS => shaping::slice(),
        "ArgMax" => reducing::arg_max(attributes, false)?,
        "ArgMin" => reducing::arg_max(attributes, true)?,
        "Softmax" => reducing::softmax(attributes, opset, false)?,
        "LogSoftmax" => reducing::softmax(attributes, opset, true)?,
        "LpNormalization" => reducing::lp_normalization(attributes)?,
        "MatMul" => reducing::mat_mul(),
        "Gemm" => reducing::gemm(attributes)?,
        _ => return Ok(None),
    }))
}

fn classical(
    operator: &str,
    attributes: &Attributes<'_>,
    first: Option<&Tensor>,
    opset: i64,
) -> Result<Option<Made>, String> {
    // Before, an encoder had one list, and its words were numbered by their place.
    const ENCODER_WITH_KEYS: i64 = 2;
    let input = || first.ok_or("it has no input");
    Ok(Some(match operator {
        "TreeEnsembleRegressor" => ensemble::regressor(attributes, input()?)?.into(),
        "TreeEnsembleClassifier" => classifier(ensemble::classifier(attributes, input()?)?),
        "TreeEnsemble" => ensemble::ensemble(attributes)?.into(),
        "LinearRegressor" => linear::regressor(attributes)?.into(),
        "LinearClassifier" => classifier(linear::classifier(attributes)?),
        "SVMRegressor" => linear::vector_regressor(attributes)?.into(),
        "SVMClassifier" => classifier(linear::vector_classifier(attributes)?),
        "Scaler" => scale::scaler(attributes)?.into(),
        "Imputer" => scale::imputer(attributes)?.into(),
        "Normalizer" => scale::normalizer(attributes)?.into(),
        "Binarizer" => scale::binarizer(attributes)?.into(),
        "FeatureVectorizer" => scale::feature_vectorizer(attributes)?.into(),
        "OneHotEncoder" => encode::one_hot(attributes)?.into(),
        "LabelEncoder" if opset >= ENCODER_WITH_KEYS => encode::label_encoder(attributes)?.into(),
        "ArrayFeatureExtractor" => encode::array_feature_extractor().into(),
        // Its maps from class to score are kept as the scores they are made of.
        "ZipMap" => Made {
            operator: shaping::identity(),
            classes: Some((
                0,
                Labels::read(attributes, "classlabels_int64s", "classlabels_strings")?,
            )),
        },
        _ => return Ok(None),
    }))
}
