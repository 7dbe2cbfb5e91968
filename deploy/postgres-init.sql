-- One database a tenant: Dagster's is made by the image (POSTGRES_DB), MLflow's here.
CREATE DATABASE mlflow;
