/** The panel beside a customer in the Stripe dashboard. */
import type { ExtensionContextValue } from "@stripe/ui-extension-sdk/context";
import { useMemo } from "react";

import { ApiProblem, connectionFrom, createApi } from "../api";
import { CompanyPanel } from "../panel/CompanyPanel";
import OverviewView from "./OverviewView";

const CustomerView = (context: ExtensionContextValue) => {
  const connection = connectionFrom(context);
  // The dashboard hands over new objects with every render; the panel starts again only when one of these differs.
  const identity = connection instanceof ApiProblem ? connection.message : JSON.stringify(connection);
  // eslint-disable-next-line react-hooks/exhaustive-deps -- `identity` stands for the contents of `connection`.
  const api = useMemo(() => createApi(connection), [identity]);

  const customer = context.environment.objectContext?.id;
  if (!customer) return <OverviewView {...context} />;
  return (
    <CompanyPanel
      key={`${identity} ${customer}`}
      api={api}
      customer={customer}
      locale={context.userContext.locale}
    />
  );
};

export default CustomerView;
