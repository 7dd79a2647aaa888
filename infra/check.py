"""What no tool knows of the templates: that they say what the code says.

    check.py KUBERNETES

KUBERNETES is the rendered base. Prints each thing that is wrong, and ends with 1 if there is one.
"""

import json
import pathlib
import re
import sys
from unittest.mock import patch

import yaml
from samcli.yamlhelper import yaml_parse
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator

ROOT = pathlib.Path(__file__).parent.parent

# What each function may do, reviewed: a change here is a change of what a function that was taken over can reach.
RUN = {
    "logs:CreateLogStream",
    "logs:PutLogEvents",
    "ec2:CreateNetworkInterface *",
    "ec2:DescribeNetworkInterfaces *",
    "ec2:DescribeSubnets *",
    "ec2:DeleteNetworkInterface *",
    "ec2:AssignPrivateIpAddresses *",
    "ec2:UnassignPrivateIpAddresses *",
    "xray:PutTraceSegments *",
    "xray:PutTelemetryRecords *",
}
LOG_IN = {"rds-db:connect DatabaseResourceId", "secretsmanager:GetSecretValue DatabaseSecretArn"}
OPERATOR = {"secretsmanager:GetSecretValue AdminSecret"}
MASTER = {"secretsmanager:GetSecretValue MasterSecretArn"}
MAY = {
    "dequeue": RUN | LOG_IN,
    "heartbeat": RUN | LOG_IN,
    "result": RUN | LOG_IN,
    "logs": RUN | LOG_IN,
    "jobs": RUN | LOG_IN,
    "run": RUN | LOG_IN,
    "executions": RUN | LOG_IN,
    "dlq": RUN | LOG_IN,
    "tenants": RUN | LOG_IN | OPERATOR,
    "worker_tokens": RUN | LOG_IN | OPERATOR,
    "queues": RUN | LOG_IN | OPERATOR,
    "workers": RUN | LOG_IN | OPERATOR,
    "health": RUN | LOG_IN,
    "openapi": RUN,
    "sweep": RUN | LOG_IN,
    "migrate": RUN | LOG_IN | MASTER,
}
# What the function that counts ECS workers may do.
SCALER_MAY = {"ecs:DescribeServices", "logs:CreateLogStream", "logs:PutLogEvents", "secretsmanager:GetSecretValue"}

# The gateway gives up after so many seconds; a function must have by then.
GATEWAY_SECONDS = 30

problems = []


def hold(true, problem):
    if not true:
        problems.append(problem)


def same(what, found, wanted):
    for extra in sorted(found - wanted, key=str):
        problems.append(f"{what}: {extra} should not be there")
    for missing in sorted(wanted - found, key=str):
        problems.append(f"{what}: {missing} is missing")


def read(path):
    return yaml_parse((ROOT / path).read_text())


def translated(template):
    """The template as CloudFormation gets it, made by the translator that AWS runs, whose look-ups are not needed."""
    for function in of_type(template, "AWS::Serverless::Function").values():
        function["Properties"]["CodeUri"] = "s3://bucket/key"
    template["Globals"]["Function"].pop("CodeUri")
    with patch("boto3.session.Session.region_name", "us-east-1"):
        return Translator({}, Parser()).translate(template, {}, {})


def of_type(template, kind):
    return {name: it for name, it in template["Resources"].items() if it["Type"] == kind}


def walk(value):
    """Every mapping in a value, whatever conditions it is under."""
    if isinstance(value, dict):
        yield value
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from walk(inner)


def actions(policy):
    """What a policy allows, under any condition, each action with the secret or database that it is for, or `*`."""
    for statement in walk(policy):
        if statement.get("Effect") != "Allow" or "Action" not in statement:
            continue
        listed, resource = statement["Action"], statement["Resource"]
        named = re.findall(r"\b(?:AdminSecret|DatabaseSecretArn|MasterSecretArn|DatabaseResourceId)\b", json.dumps(resource))
        for action in listed if isinstance(listed, list) else [listed]:
            for which in set(named) or {"*" if resource == "*" else ""}:
                yield f"{action} {which}".strip()


def check_template():
    source = read("template.yaml")
    template = translated(read("template.yaml"))
    functions = of_type(template, "AWS::Lambda::Function")
    binaries = {
        name: it["Metadata"]["BuildProperties"]["Binary"] for name, it in of_type(source, "AWS::Serverless::Function").items()
    }
    for name, binary in binaries.items():
        same(f"template.yaml: the name of {binary}", {name}, {"".join(word.capitalize() for word in binary.split("_"))})
        hold(source["Resources"][name]["Metadata"]["BuildMethod"] == "rust-cargolambda", f"template.yaml: {name} is not built")
    built = {path.stem for path in (ROOT / "functions/src/bin").glob("*.rs")}
    same("template.yaml: functions, as functions/src/bin has them", set(binaries.values()), built)

    document = json.loads((ROOT / "docs/openapi.json").read_text())
    wanted = {
        (method.upper(), path, operation["tags"][0])
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    }
    api = template["Resources"]["ServerlessHttpApi"]["Properties"]["Body"]["paths"]
    routes, timeouts = set(), []
    for path, operations in api.items():
        for method, operation in operations.items():
            integration = operation["x-amazon-apigateway-integration"]
            name = re.search(r"\$\{(\w+)\.Arn\}", json.dumps(integration["uri"])).group(1)
            routes.add((method.upper(), path, binaries[name]))
            timeouts.append(functions[name]["Properties"]["Timeout"])
            hold(integration["payloadFormatVersion"] == "2.0", f"template.yaml: {method} {path} is not of payload format 2.0")
    same("template.yaml: routes, as docs/openapi.json has them", routes, wanted)
    hold(max(timeouts) < GATEWAY_SECONDS, "template.yaml: a function works on when the gateway has given up")

    roles = of_type(template, "AWS::IAM::Role")
    policies = of_type(template, "AWS::IAM::ManagedPolicy")
    same("template.yaml: roles", set(roles), {f"{name}Role" for name in binaries})
    same("infra/check.py: functions", set(MAY), set(binaries.values()))
    for name, binary in binaries.items():
        role = roles[f"{name}Role"]["Properties"]
        hold(functions[name]["Properties"]["Role"] == {"Fn::GetAtt": [f"{name}Role", "Arn"]}, f"template.yaml: {name}'s role")
        may = set(actions(role.get("Policies", [])))
        for arn in role["ManagedPolicyArns"]:
            may |= set(actions(policies[arn["Ref"]]["Properties"]))
        same(f"template.yaml: what {name} may do", may, MAY.get(binary, set()))
        if binary != "migrate":
            waits = source["Resources"][name].get("DependsOn")
            hold(waits == "Migrated", f"template.yaml: {name} does not wait for the migrations")

    # CloudFormation asks asynchronously, and Lambda would ask twice more; that setting is the alias's own.
    asked = template["Resources"]["MigrateEventInvokeConfig"]["Properties"]
    hold(asked["Qualifier"] == "live" and asked["MaximumRetryAttempts"] == 0, "template.yaml: migrations that fail are tried again")
    token = template["Resources"]["Migrated"]["Properties"]["ServiceToken"]
    hold(token == {"Ref": "MigrateAliaslive"}, "template.yaml: Migrated does not ask through the alias")

    for output in ("ApiUrl", "Cell", "AdminSecretArn"):
        hold(output in source["Outputs"], f"template.yaml: no output {output}, which a client needs")
    # `sam build` takes such a name for the parameter's value, and crashes.
    same("template.yaml: outputs named like parameters", set(source["Outputs"]) & set(source["Parameters"]), set())
    for stack in of_type(source, "AWS::CloudFormation::Stack").values():
        path = stack["Properties"]["TemplateURL"]
        declared = read(path)["Parameters"]
        needed = {name for name, it in declared.items() if "Default" not in it}
        given = set(stack["Properties"]["Parameters"])
        same(f"{path}: parameters it is given", given - set(declared), set())
        same(f"{path}: parameters it needs", needed - given, set())


def check_network():
    resources = read("infra/network-database.yaml")["Resources"]
    # checkov looks at instances alone.
    hold(resources["Cluster"]["Properties"]["StorageEncrypted"] is True, "infra/network-database.yaml: Cluster is not encrypted")
    types = {it["Type"] for it in resources.values()}
    out = {"AWS::EC2::InternetGateway", "AWS::EC2::NatGateway", "AWS::EC2::Route", "AWS::EC2::EgressOnlyInternetGateway"}
    same("infra/network-database.yaml: ways out", types & out, set())


def check_workers():
    resources = read("infra/worker-ecs.yaml")["Resources"]
    # A job stands where its worker does: neither may do anything unless an operator names a role.
    role = resources["Task"]["Properties"]["TaskRoleArn"]
    hold(role == {"Fn::If": ["HasJobRole", {"Ref": "JobRoleArn"}, {"Ref": "AWS::NoValue"}]}, "infra/worker-ecs.yaml: jobs have a role")
    may = set(actions(resources["ScalerRole"]["Properties"]["Policies"]))
    same("infra/worker-ecs.yaml: what the scaler may do", may, SCALER_MAY)
    [container] = resources["Task"]["Properties"]["ContainerDefinitions"]
    told = {it["Name"]: it["Value"] for it in container["Environment"]}
    hold(int(told["JOBPLANE_DRAIN_SECONDS"]) + 10 < container["StopTimeout"] <= 120,
         "infra/worker-ecs.yaml: a worker has not drained by the time that it is killed")


def check_kubernetes(path):
    objects = {(it["kind"], it["metadata"]["name"]): it for it in yaml.safe_load_all(pathlib.Path(path).read_text())}
    scaled = objects["ScaledObject", "worker"]["spec"]
    triggers = [it["name"] for it in scaled["triggers"]]
    modifiers = scaled["advanced"]["scalingModifiers"]
    same("scaler.yaml: what the formula adds", set(modifiers["formula"].split(" + ")), set(triggers))
    pod = objects["Deployment", "worker"]["spec"]["template"]["spec"]
    [worker] = pod["containers"]
    told = {it["name"]: it.get("value") for it in worker["env"]}
    hold(modifiers["target"] == told["JOBPLANE_CONCURRENCY"], "scaler.yaml: the target is not a worker's concurrency")
    for trigger in scaled["triggers"]:
        field = f'items.#(name=="{told["JOBPLANE_QUEUES"]}").{trigger["name"]}'
        same("scaler.yaml: what is counted", {trigger["metadata"]["valueLocation"]}, {field})
    hold(int(told["JOBPLANE_DRAIN_SECONDS"]) + 10 < pod["terminationGracePeriodSeconds"], "worker.yaml: a worker is killed early")
    hold("DATABASE_URL" not in told, "worker.yaml: a worker knows the database")


def check_compose():
    compose = yaml.safe_load((ROOT / "infra/compose.yaml").read_text())
    worker = compose["services"]["worker"]
    hold("database" not in worker["networks"], "infra/compose.yaml: workers reach the database")
    hold("DATABASE_URL" not in worker["environment"], "infra/compose.yaml: a worker knows the database")


def check_variables():
    """What the files and documents set is read by something."""
    # The compose file's own.
    known = {"JOBPLANE_PORT", "JOBPLANE_VERSION", "JOBPLANE_WORKER_IMAGE"}
    for crate in ("functions", "cli", "worker", "protocol"):
        for source in (ROOT / crate / "src").rglob("*.rs"):
            known |= set(re.findall(r"JOBPLANE_[A-Z_]+", source.read_text()))
    for path in [ROOT / "template.yaml", *(ROOT / "infra").rglob("*.yaml"), *pages()]:
        same(f"{path.name}: variables", set(re.findall(r"JOBPLANE_[A-Z_]+", path.read_text())) - known, set())


def pages():
    return [ROOT / f"docs/{it}.md" for it in ("deploy-aws", "deploy-kubernetes", "deploy-compose", "operate", "security", "cost")]


def anchors(text):
    for heading in re.findall(r"^#+ (.*)$", text, re.M):
        yield re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def check_docs():
    """Links lead somewhere; parameters, alarms and outputs that are written of exist."""
    texts = {path.resolve(): path.read_text() for path in (ROOT / "docs").glob("*.md")}
    texts |= {path.resolve(): path.read_text() for path in ROOT.glob("*.md")}
    for page in pages():
        text = page.read_text()
        for link in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
            file, _, anchor = link.partition("#")
            target = (page.parent / file).resolve() if file else page.resolve()
            hold(target.exists(), f"{page.name}: {link} is not there")
            hold(not anchor or target not in texts or anchor in anchors(texts[target]), f"{page.name}: {link} has no such heading")
    operate = set(anchors((ROOT / "docs/operate.md").read_text()))
    for name, alarm in of_type(read("infra/alarms.yaml"), "AWS::CloudWatch::Alarm").items():
        hold(alarm["Properties"]["AlarmDescription"].partition("#")[2] in operate, f"infra/alarms.yaml: {name} is not in operate.md")
    declared = {"Name"}  # the AWS CLI's own, in its filters
    for path in [ROOT / "template.yaml", *(ROOT / "infra").glob("*.yaml")]:
        declared |= set(yaml_parse(path.read_text()).get("Parameters", {}))
    for page in pages():
        for name in re.findall(r"(?:(?<=[\s`'\"]))([A-Z][a-z]+[A-Za-z]*)=", page.read_text()):
            hold(name in declared, f"{page.name}: there is no parameter {name}")


check_template()
check_network()
check_workers()
check_kubernetes(sys.argv[1])
check_compose()
check_variables()
check_docs()
for problem in problems:
    print(problem)
sys.exit(bool(problems))
