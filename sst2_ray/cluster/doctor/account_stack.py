"""Checks of cluster/aws-account.yaml, the CloudFormation template of group, roles and launch templates: references, rights, ends."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator

import yaml

from sst2_ray.cluster.clouds.cloudformation import read_template
from sst2_ray.cluster.findings import Findings
from sst2_ray.config.section import Section
from sst2_ray.errors import did_you_mean

_VERSION = "2010-09-09"
_POLICY_VERSION = "2012-10-17"
_PARAMETERS = ("VpcId", "SshFrom", "StorageBucket", "ClusterName", "InstanceTypes")
"""Parameters that `sst2-ray up` fills in."""
_TYPES: dict[str, tuple[str, ...]] = {
    "AWS::EC2::SecurityGroup": ("GroupId", "VpcId", "Id"),
    "AWS::EC2::SecurityGroupIngress": ("Id",),
    "AWS::EC2::SecurityGroupEgress": ("Id",),
    "AWS::EC2::LaunchTemplate": ("LaunchTemplateId", "LatestVersionNumber", "DefaultVersionNumber"),
    "AWS::IAM::Role": ("Arn", "RoleId"),
    "AWS::IAM::InstanceProfile": ("Arn",),
    "AWS::IAM::ManagedPolicy": ("PolicyArn", "PolicyId", "AttachmentCount"),
    "AWS::IAM::Policy": ("Id",),
    "AWS::S3::Bucket": ("Arn", "DomainName", "RegionalDomainName"),
}
"""Types of resources, and the attributes that !GetAtt takes of them."""
_KEYS = (
    "Type", "Properties", "DependsOn", "Condition", "Metadata", "DeletionPolicy", "UpdateReplacePolicy", "CreationPolicy",
)  # fmt: skip
_TOP = (
    "AWSTemplateFormatVersion", "Description", "Parameters", "Resources", "Outputs", "Metadata", "Mappings", "Conditions", "Rules",
    "Transform",
)  # fmt: skip
_PARAMETER_TYPE = re.compile(
    r"String|Number|CommaDelimitedList|List<.+>|AWS::SSM::Parameter::.+|AWS::EC2::(AvailabilityZone::Name|(Image|Instance|SecurityGroup"
    r"|Subnet|Volume|VPC)::Id|KeyPair::KeyName|SecurityGroup::GroupName)"
)
_PSEUDO = (
    "AWS::Partition", "AWS::Region", "AWS::AccountId", "AWS::StackName", "AWS::StackId", "AWS::NoValue", "AWS::URLSuffix",
)  # fmt: skip
_NAMES = ("GroupName", "RoleName", "InstanceProfileName", "LaunchTemplateName")
_NOT_OPERATIONS = {
    "iam": ("PassRole",),
    "s3": (
        "ListBucket", "GetBucketLocation", "GetObject", "PutObject", "DeleteObject", "AbortMultipartUpload", "ListMultipartUploadParts",
        "ListBucketMultipartUploads", "GetObjectVersion", "ListBucketVersions", "GetObjectTagging", "PutObjectTagging",
    ),
}  # fmt: skip
"""Rights that are no call of the same name."""
_BUCKET_ACTIONS = ("ListBucket", "GetBucketLocation", "ListBucketMultipartUploads", "ListBucketVersions")


def check_account_stack(text: str, where: str, found: Findings) -> None:
    """Make every check of this module."""
    try:
        template = read_template(text)
    except yaml.YAMLError as error:
        found.error(where, f"cannot be read as YAML: {' '.join(str(error).split())[:160]}", "correct the line")
        return
    document = Section(template)
    if document.text("AWSTemplateFormatVersion") != _VERSION:
        what = f"{document.text('AWSTemplateFormatVersion')!r}: there is one version of templates"
        found.error("AWSTemplateFormatVersion", what, f'"{_VERSION}"')
    for key in document.raw.keys() - set(_TOP):
        found.error(str(key), "CloudFormation knows no such section", did_you_mean(str(key), _TOP))
    resources = dict(document.section("Resources").named())
    parameters = document.section("Parameters")
    for name in _PARAMETERS:
        if name not in parameters:
            found.error("Parameters", f"{name} is missing, and `sst2-ray up` gives it", f"{name}: {{Type: ...}}")
    _check_addresses(parameters, found)
    _check_references(document, resources, found)
    for resource in resources.values():
        _check_resource(resource, found)
    _check_roles(resources, found)


def _check_addresses(parameters: Section, found: Findings) -> None:
    """Check that SSH cannot be opened to the world by a default, or by what the pattern lets pass."""
    for name, parameter in parameters.named():
        if not _PARAMETER_TYPE.fullmatch(parameter.text("Type")):
            found.error(f"Parameters.{name}.Type", f"{parameter.text('Type')!r} does not exist", "e.g. String")
    ssh = parameters.section("SshFrom")
    pattern = ssh.text("AllowedPattern")
    if "Default" in ssh:
        what = f"{ssh.text('Default')} is taken where nobody gives an address"
        found.error(ssh.at("Default"), what, "remove it: `sst2-ray up --ssh-from` gives it")
    try:
        is_open = not pattern or any(re.fullmatch(pattern, text) for text in ("0.0.0.0/0", "10.0.0.0/4"))
    except re.error as error:
        found.error(ssh.at("AllowedPattern"), f"is no pattern: {error}", "as in the repository's file")
        return
    if is_open:
        what = "lets 0.0.0.0/0 pass: port 22 open to the whole internet"
        found.error(ssh.at("AllowedPattern"), what, "as in the repository's file")


def _functions(value: object, path: str) -> Iterator[tuple[str, str, object]]:
    """Yield (path, function, argument) of every Ref, GetAtt and Sub."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key in ("Ref", "Fn::GetAtt", "Fn::Sub"):
                yield path, key, item
            yield from _functions(item, path if str(key).startswith("Fn::") else f"{path}.{key}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _functions(item, f"{path}[{index}]")


def _check_references(document: Section, resources: dict[str, Section], found: Findings) -> None:
    known = [*resources, *document.section("Parameters").raw, *_PSEUDO]
    for path, kind, argument in _functions({k: document.get(k) for k in ("Resources", "Outputs")}, ""):
        text = argument[0] if isinstance(argument, list) and argument and kind == "Fn::Sub" else argument
        named = (
            re.findall(r"\$\{([^!}][^}]*)\}", str(text))
            if kind == "Fn::Sub"
            else [".".join(map(str, argument)) if isinstance(argument, list) else str(argument)]
        )
        for name in named:
            base, _, attribute = name.partition(".")
            where = path.lstrip(".")
            if base not in known:
                found.error(where, f"{base!r} is neither a parameter nor a resource", did_you_mean(base, known))
            elif (attribute or kind == "Fn::GetAtt") and base in resources:
                allowed = _TYPES.get(resources[base].text("Type"), (attribute,))
                if attribute not in allowed:
                    found.error(where, f"{base} has no {attribute or 'attribute'}", f"one of {', '.join(allowed)}")


def _check_resource(resource: Section, found: Findings) -> None:
    kind, properties = resource.text("Type"), resource.section("Properties")
    if kind not in _TYPES:
        found.error(resource.at("Type"), f"{kind!r} is not a type known here", did_you_mean(kind, _TYPES))
    for key in resource.raw.keys() - set(_KEYS):
        found.error(resource.at(str(key)), "CloudFormation knows no such key", did_you_mean(str(key), _KEYS))
    _check_names(properties, found)
    rules = properties.sections("SecurityGroupIngress") + ([properties] if kind.endswith("Ingress") else [])
    for rule in rules:
        _check_rule(rule, found)
    if kind == "AWS::EC2::LaunchTemplate":
        _check_template(properties.section("LaunchTemplateData"), found)
    if kind == "AWS::IAM::Role":
        _check_trust(properties, found)
    for key in ("PolicyDocument", "AssumeRolePolicyDocument"):
        document = properties.section(key)
        if document and document.text("Version") != _POLICY_VERSION:
            found.error(document.at("Version"), f"{document.text('Version')!r} is no version", f'"{_POLICY_VERSION}"')
    for statement in properties.section("PolicyDocument").sections("Statement"):
        _check_statement(statement, found)


def _check_names(properties: Section, found: Findings) -> None:
    for key in _NAMES:
        text = str(properties.get(key) or "")
        regional = key in ("RoleName", "InstanceProfileName")
        if key in properties and ("${ClusterName}" not in text or (regional and "${AWS::Region}" not in text)):
            what = "a fixed name: the stack of a second cluster, or of a second region, fails"
            found.error(properties.at(key), what, '!Sub "sst2-ray-${ClusterName}-..."')


def _check_rule(rule: Section, found: Findings) -> None:
    address = rule.get("CidrIp") or rule.get("CidrIpv6")
    if address is None:
        return
    if isinstance(address, str) and re.search(r"/[0-7]$|^::/0$", address):
        found.error(rule.path, f"{address}: open to the whole internet", "CidrIp: !Ref SshFrom")
    if str(rule.get("IpProtocol")) != "tcp":
        found.error(rule.at("IpProtocol"), f"{rule.get('IpProtocol')!r} from outside: every port is open", "tcp")
    if rule.whole("FromPort") != 22 or rule.whole("ToPort") != 22:
        what = f"ports {rule.text('FromPort', 'any')} to {rule.text('ToPort', 'any')} from outside: Ray's own run code"
        found.error(rule.path, what, "FromPort: 22, ToPort: 22")


def _check_template(data: Section, found: Findings) -> None:
    if data.text("InstanceInitiatedShutdownBehavior") != "terminate":
        what = "a machine that shuts itself down would stay, and its disks bill: autostop ends nothing"
        found.error(data.at("InstanceInitiatedShutdownBehavior"), what, "terminate")
    metadata = data.section("MetadataOptions")
    if metadata.text("HttpTokens") != "required":
        what = "whatever fetches a URL on the machine can read the keys of its role"
        found.error(data.at("MetadataOptions"), what, "HttpTokens: required")
    if (metadata.whole("HttpPutResponseHopLimit") or 1) > 2:
        found.warning(data.at("MetadataOptions"), "containers and what they route reach the role's keys", "1")
    for key in ("IamInstanceProfile", "SecurityGroupIds"):
        if key not in data:
            found.error(data.path, f"{key} is missing: Ray would make its own, with all rights or open", "as shipped")


def _check_trust(properties: Section, found: Findings) -> None:
    for statement in properties.section("AssumeRolePolicyDocument").sections("Statement"):
        if statement.section("Principal").get("Service") != "ec2.amazonaws.com":
            what = f"{statement.get('Principal')!r} may take the role; machines of EC2 must, and nobody else"
            found.error(statement.at("Principal"), what, "Principal: {Service: ec2.amazonaws.com}")


@functools.cache
def _operations(service: str) -> tuple[str, ...]:
    """Return the rights of a service by its calls; none without the AWS client library, or for an unknown one."""
    try:
        import botocore.session

        names = botocore.session.get_session().get_service_model(service).operation_names
    except Exception:  # botocore's own kinds, for services that it does not know
        return _NOT_OPERATIONS.get(service, ())
    return (*_NOT_OPERATIONS.get(service, ()), *names) if service != "s3" else _NOT_OPERATIONS["s3"]


def _listed(statement: Section, key: str) -> list[object]:
    value = statement.get(key)
    return value if isinstance(value, list) else [value]


def _text(resource: object) -> str:
    return str(next(iter(resource.values()), "")) if isinstance(resource, dict) else str(resource)


def _check_statement(statement: Section, found: Findings) -> None:
    actions, resources = _listed(statement, "Action"), [_text(one) for one in _listed(statement, "Resource")]
    if statement.text("Effect") not in ("Allow", "Deny"):
        found.error(statement.at("Effect"), f"{statement.text('Effect')!r} does not exist", "Allow")
    for action in map(str, actions):
        service, _, call = action.partition(":")
        if "*" in action:
            found.error(statement.at("Action"), f"{action}: more than the cluster calls", "the calls by name")
        elif _operations(service) and call not in _operations(service):
            found.error(statement.at("Action"), f"there is no {action}", did_you_mean(call, _operations(service)))
        if service == "s3":
            _check_bucket(statement, call, resources, found)
    _check_bounds(statement, actions, resources, found)


def _check_bounds(statement: Section, actions: list[object], resources: list[str], found: Findings) -> None:
    """Check that the rights are bound to the cluster's own machines."""
    conditions = str(statement.get("Condition") or "")
    if "*" in resources and not all(str(action).startswith("ec2:Describe") for action in actions):
        found.error(statement.at("Resource"), "every resource of the account", "the cluster's own")
    if "ec2:RunInstances" in actions and any(text.endswith(":instance/*") for text in resources):
        for needed in ("aws:RequestTag/ray-cluster-name", "ec2:InstanceType"):
            if needed not in conditions:
                what = f"without {needed} the head may start any machine"
                found.error(statement.path, what, f"Condition: {{StringEquals: {{{needed}: ...}}}}")
    if "ec2:TerminateInstances" in actions and "aws:ResourceTag/ray-cluster-name" not in conditions:
        what = "the head may end machines of others"
        found.error(statement.path, what, "Condition on aws:ResourceTag/ray-cluster-name")


def _check_bucket(statement: Section, call: str, resources: list[str], found: Findings) -> None:
    for text in resources:
        if text.endswith(":::*") or text == "*":
            found.error(statement.at("Resource"), f"{text}: every bucket of the account", "${StorageBucket}")
        elif (call in _BUCKET_ACTIONS) == ("/" in text.rpartition(":::")[2]):
            right = "the bucket, without /*" if call in _BUCKET_ACTIONS else "the objects: .../*"
            found.error(statement.at("Resource"), f"s3:{call} on {text} allows nothing", right)


def _check_roles(resources: dict[str, Section], found: Findings) -> None:
    """Check that the head's role may start machines, and the workers' may not."""
    starters = {
        _text(role)
        for resource in resources.values()
        for statement in resource.section("Properties").section("PolicyDocument").sections("Statement")
        if "ec2:RunInstances" in _listed(statement, "Action")
        for role in resource.section("Properties").items("Roles")
    }
    for name, resource in resources.items():
        data = resource.section("Properties").section("LaunchTemplateData")
        profile = _text(data.section("IamInstanceProfile").get("Arn")).partition(".")[0].strip("['")
        roles = resources.get(profile, Section(None)).section("Properties").items("Roles")
        named = str(resource.section("Properties").get("LaunchTemplateName"))
        may_start = bool({_text(role) for role in roles} & starters)
        if resource.text("Type") == "AWS::EC2::LaunchTemplate" and roles and may_start != ("-head" in named):
            what = (
                "workers would get the right to start and end machines"
                if may_start
                else "the head's autoscaler may not start a machine"
            )
            found.error(f"Resources.{name}", what, "the role of its own kind of machine")
